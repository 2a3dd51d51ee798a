"""The tokens of a rollout as the model server sampled them, and the training rows that they make.

Invariant: every id of a row was said by the model server, and a row is one chain: the prompt of each of its turns
begins with all ids before it. Nothing is tokenised here. Where a conversation went on unchanged and its ids did not,
the text was tokenised anew; the log-probabilities are then of other ids than those that would be trained, and no row is
made.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import isfinite
from numbers import Integral, Real
from typing import Any

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.sameness import difference, shown, shows_anything, unshown
from osmosis_ai.rollout.core.sampled import sampled_fields
from osmosis_ai.rollout.core.trace.format import TraceEvent
from osmosis_ai.rollout.trainer.errors import TokensError

Version = int | str

_WHOSE = "look at what the completer makes of the model server's reply"


@dataclass(frozen=True, slots=True)
class TurnTokens:
    """One generated message."""

    turn: int
    """From 1, in the order of the replies."""
    goes_on_from: int | None
    """The turn whose conversation, reply included, this one's begins with; ``None`` for the first of one."""
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    """Those sampled."""
    logprobs: tuple[float, ...]
    """One for each of ``ids``."""
    finish_reason: str
    weight_versions: tuple[Version, ...]
    """Of the first to the last token; as the model server calls them, none where it does not say."""
    at: float
    """When the reply was there, in unix seconds."""


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """Token ids to train on, and which of them the policy sampled."""

    ids: tuple[int, ...]
    mask: tuple[int, ...]
    """1 for a sampled token, 0 for one of the prompt, of a tool's answer, or of a turn that another row has."""
    logprobs: tuple[float, ...]
    """Of the sampled tokens, 0.0 for all others."""
    prompt_length: int
    """How many ids stand before the first sampled one."""
    turns: tuple[int, ...]
    weight_versions: tuple[Version, ...]
    """From the first token to the last, repeats left out."""


class TokenRecorder:
    """The turns of one rollout, as their replies come.

    A conversation goes on where its messages are the same by ``core/sameness.py``, which the server asks too.
    """

    def __init__(self) -> None:
        self.turns: list[TurnTokens] = []
        self._replies: list[Mapping[str, Any]] = []
        self._turns_after: dict[bytes, list[int]] = {}
        """By what was said up to their replies, and with them."""

    def note(self, messages: Sequence[Mapping[str, Any]], result: CompletionsResult, at: float | None = None) -> None:
        """A turn: ``result`` is the reply to ``messages``; nothing to note where nothing was sampled, nor said."""
        if not result.token_ids and not shows_anything(result.message):
            return
        turn = len(self.turns) + 1
        # Without ids it makes no row, which `training_rows` says; to find its place would cost for nothing.
        goes_on_from = self._place(messages, result) if result.token_ids else None
        self._replies.append(result.message)
        self.turns.append(
            TurnTokens(
                turn=turn,
                goes_on_from=goes_on_from,
                prompt_ids=tuple(result.prompt_token_ids or ()),
                ids=tuple(result.token_ids or ()),
                logprobs=tuple(result.logprobs or ()),
                finish_reason=result.finish_reason,
                weight_versions=tuple(result.weight_versions or ()),
                at=time.time() if at is None else at,
            )
        )

    def _place(self, messages: Sequence[Mapping[str, Any]], result: CompletionsResult) -> int | None:
        """The turn that these messages go on from; and the place after the reply to them is this turn's."""
        said = sha256()
        goes_on_from = None
        for message in messages:
            said.update(shown(message))
            goes_on_from = self._before(said.digest(), message, result.prompt_token_ids or ()) or goes_on_from
        said.update(shown(result.message))
        self._turns_after.setdefault(said.digest(), []).append(len(self.turns) + 1)
        return goes_on_from

    def _before(self, said: bytes, reply: Mapping[str, Any], prompt_ids: Sequence[int]) -> int | None:
        """Of the turns that ended in ``reply``, one whose ids the prompt goes on from, else the last."""
        turns = [n for n in self._turns_after.get(said, ()) if difference(self._replies[n - 1], reply) is None]
        for number in reversed(turns):
            of_turn = self.turns[number - 1]
            before = of_turn.prompt_ids + of_turn.ids
            if tuple(prompt_ids[: len(before)]) == before:
                return number
        # Where something was left out that may be, such as what the model thought, a template may leave it out as well.
        return next((n for n in reversed(turns) if unshown(self._replies[n - 1]) <= unshown(reply)), None)


@dataclass
class _Chain:
    ids: list[int]
    prompt_length: int
    last: int = 0
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)

    def append(self, ids: Sequence[int], logprobs: Sequence[float] | None) -> None:
        self.ids += ids
        self.mask += [int(logprobs is not None)] * len(ids)
        self.logprobs += logprobs or [0.0] * len(ids)


def training_rows(turns: Iterable[TurnTokens]) -> list[TrainingRow]:
    """The rows of one rollout: one, or several where its conversation was compacted or branched.

    Each sampled token is trained in exactly one row, that of the first conversation it is in.

    Raises:
        TokensError: a turn has no ids or log-probabilities, or its conversation was tokenised anew.
    """
    chains: list[_Chain] = []
    ids_after: dict[int, tuple[int, ...]] = {}
    for turn in turns:
        _check(turn)
        before = ids_after[turn.goes_on_from] if turn.goes_on_from is not None else ()
        if turn.prompt_ids[: len(before)] != before:
            raise _tokenised_anew(turn, before)
        ids_after[turn.turn] = turn.prompt_ids + turn.ids
        chain = next((chain for chain in chains if chain.last == turn.goes_on_from), None)
        if chain is None:
            chain = _Chain([], len(turn.prompt_ids))
            chains.append(chain)
        chain.append(turn.prompt_ids[len(chain.ids) :], None)
        chain.append(turn.ids, turn.logprobs)
        chain.last = turn.turn
        chain.turns.append(turn.turn)
        chain.versions += turn.weight_versions
    return [
        TrainingRow(
            ids=tuple(chain.ids),
            mask=tuple(chain.mask),
            logprobs=tuple(chain.logprobs),
            prompt_length=chain.prompt_length,
            turns=tuple(chain.turns),
            weight_versions=tuple(_without_repeats(chain.versions)),
        )
        for chain in chains
    ]


def turns_of_trace(events: Iterable[Mapping[str, Any]]) -> list[TurnTokens]:
    """The turns of one rollout out of its trace, as ``reader.events_of`` and ``osmosis traces export`` give it."""
    recorder = TokenRecorder()
    messages: list[dict[str, Any]] = []
    asked: dict[object, list[dict[str, Any]]] = {}
    for event in events:
        name = event.get("event")
        if name == TraceEvent.CHAT_START:
            messages[event["at"] :] = event["appended"]
            asked[event["turn"]] = list(messages)
        elif name == TraceEvent.CHAT_END and "reply" in event:
            messages.append(event["reply"])
            sampled = {"prompt_token_ids": [], "weight_versions": [], **sampled_fields(event, event)}
            result = CompletionsResult(
                message=event["reply"], usage={}, finish_reason=event.get("finish_reason") or "", **sampled
            )
            recorder.note(asked[event["turn"]], result, at=event.get("time"))
    return recorder.turns


def _check(turn: TurnTokens) -> None:
    if not turn.ids or not turn.prompt_ids:
        raise TokensError(
            f"Turn {turn.turn} has no token ids: have the model server send them (return_token_ids of vLLM).",
            "without token ids",
        )
    if len(turn.logprobs) != len(turn.ids):
        raise TokensError(
            f"Turn {turn.turn} has {len(turn.ids)} sampled tokens and {len(turn.logprobs)} log-probabilities:"
            " have the model server send one for each (logprobs: true).",
            "without log-probabilities",
        )
    if not all(_are(Integral, ids) and min(ids) >= 0 for ids in (turn.prompt_ids, turn.ids)):
        raise TokensError(
            f"Turn {turn.turn} has a token id that is no whole number from 0 up: {_WHOSE}.", "with a bad token id"
        )
    if not (_are(Real, turn.logprobs) and all(map(isfinite, turn.logprobs))):
        raise TokensError(
            f"Turn {turn.turn} has a log-probability that is no finite number: {_WHOSE}.", "with a bad log-probability"
        )


def _are(kind: type, values: Sequence[Any]) -> bool:
    return all(issubclass(one, kind) and one is not bool for one in set(map(type, values)))


def _tokenised_anew(turn: TurnTokens, before: Sequence[int]) -> TokensError:
    same = next(
        (at for at, (now, then) in enumerate(zip(turn.prompt_ids, before, strict=False)) if now != then),
        min(len(turn.prompt_ids), len(before)),
    )
    return TokensError(
        f"Turn {turn.turn} goes on from turn {turn.goes_on_from}, but its prompt differs from those {len(before)}"
        f" tokens at number {same}: the conversation was tokenised anew, and what was sampled is not what would be"
        " trained. Send the model server ids instead of text, or a template that leaves earlier turns as they are.",
        "tokenised anew",
    )


def _without_repeats(versions: Iterable[Version]) -> Iterator[Version]:
    last: Version | None = None
    for version in versions:
        if version != last:
            yield version
        last = version
