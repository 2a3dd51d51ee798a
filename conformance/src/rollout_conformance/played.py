"""One rollout as the kit's trainer saw it: what was asked, in which order, and what it was answered.

Written by the trainer alone, in the event loop; checks read it and wait on it.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rollout_conformance.conversation import call_ids, is_whole, reply_in
from rollout_conformance.endpoint import Answer, Request
from rollout_conformance.evidence import looked_at
from rollout_conformance.strict_json import first_difference, is_same_document, parse_object
from rollout_conformance.text import shortened
from rollout_conformance.usual_causes import HELD_UP, KEY_KEPT, MADE_ANEW, NEVER_BEGAN, NOT_DELIVERED, TAKEN_FOR_CUT_OFF
from rollout_conformance.vocabulary import Failed

if TYPE_CHECKING:
    from rollout_conformance.policy import Policy

MAX_TOLD_CALLS = 8
MANY_LOST, IMPATIENT_SECONDS = 8, 5.0
BODY_REFUSED = frozenset({400, 413, 422})

_order = itertools.count()


@dataclass(eq=False)
class Call:
    """One callback of the server."""

    rollout: "PlayedRollout"
    request: Request
    was_routed: bool
    """Whether it came to the path of ``server_url``."""
    order: int = field(default_factory=lambda: next(_order))
    came_at: float = field(default_factory=time.monotonic)
    answer: Answer | None = None
    """What it got; ``None`` as long as it waits, and if the connection was cut."""
    answered_at: float | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    """The body; empty if it was no JSON object."""
    problem: str = ""
    """Why the body was none."""

    def __post_init__(self) -> None:
        try:
            self.fields = parse_object(self.request.body)
        except ValueError as error:
            self.problem = str(error)

    @property
    def was_successful(self) -> bool:
        """Whether it was answered 2xx, and the answer was whole."""
        return self.answer is not None and 200 <= self.answer.status < 300 and self.answer.is_whole

    @property
    def key(self) -> str:
        """Its Idempotency-Key; an empty text without one."""
        return self.request.headers.get("idempotency-key", "")

    @property
    def refuses_body(self) -> bool:
        """Whether it was answered that the body is not acceptable as it is."""
        return self.answer is not None and self.answer.status in BODY_REFUSED

    def is_rest_of(self, whole: "Call") -> bool:
        """Whether this result is ``whole`` without its messages; ``extra_fields.messages_refused`` may say so."""
        return bool(whole.fields.get("final_messages")) and not self.difference_but_for_messages(whole)

    def difference_but_for_messages(self, whole: "Call") -> str:
        """The first difference of this result from ``whole`` without its messages, which may say that they are."""
        expected = {**whole.fields, "final_messages": [], "extra_fields": whole._extra_fields_without_messages}
        said = {**self.fields, "extra_fields": self._extra_fields_without_messages}
        return "" if said == expected else first_difference(json.dumps(expected).encode(), json.dumps(said).encode())

    @property
    def _extra_fields_without_messages(self) -> dict[str, Any]:
        return {**self._extra_fields, "messages_refused": True}

    @property
    def _extra_fields(self) -> dict[str, Any]:
        value = self.fields.get("extra_fields")
        return value if isinstance(value, dict) else {}

    def is_attempt_after(self, before: "Call") -> bool:
        """Whether both are one call: ``before``, the one before it, got no answer, or a refusal."""
        is_unanswered = before.answered_at is not None and not before.was_successful
        return is_unanswered and is_same_document(before.request.body, self.request.body)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation it sent; what is no object is left out."""
        return objects_of(self.fields.get("messages"))

    @property
    def continued(self) -> list[dict[str, Any]]:
        """The conversation it sent, and the reply that it got."""
        return [*self.messages, *reply_in(self.answer.body if self.answer else b"")]

    @property
    def answer_in_words(self) -> str:
        """What it was answered, in a few words."""
        if self.answered_at is None:
            return "not answered yet"
        if self.answer is None:
            return "cut"
        if self.answer.is_reset:
            return "its connection was reset"
        return f"answered {self.answer.status}{'' if self.answer.is_whole else ', not to its end'}"

    @property
    def result_in_words(self) -> str:
        """A terminal result in a few words."""
        messages = self.fields.get("final_messages")
        count = len(messages) if isinstance(messages, list) else "no"
        return f"{self.fields.get('status')} with reward {self.fields.get('reward')} and {count} messages"


def objects_of(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; an empty list for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def init_in_words(init: Any) -> str:
    """An init's body, short: what is the same in all of them, and what is secret, is left out."""
    if not isinstance(init, dict):
        return shortened(repr(init))
    shown = {name: value for name, value in init.items() if name != "server_url"}
    if isinstance(messages := shown.get("messages"), list) and len(objects_of(messages)) == len(messages):
        shown["messages"] = f"({len(messages)} messages)"
    if shown.get("api_key"):
        shown["api_key"] = "(a key)"
    return shortened(json.dumps(shown))


@dataclass
class Patience:
    """How long anything is waited for; it is short once ``MANY_LOST`` rollouts have got no call for as long."""

    full_seconds: float
    lost: int = 0
    last_call: "Call | None" = None
    """The latest call for a completion of any rollout."""

    @property
    def seconds(self) -> float:
        """As of now."""
        return self.full_seconds if self.lost < MANY_LOST else min(self.full_seconds, IMPATIENT_SECONDS)


Script = Callable[[Call], Awaitable[Answer | None]]


@dataclass(eq=False)
class PlayedRollout:
    """A rollout with the scripts that answer its callbacks."""

    check_id: str
    init: dict[str, Any]
    on_chat: Script
    on_completed: Script
    patience: "Patience"
    has_delivery_faults: bool = False
    """Whether a delivery is refused, cut or delayed on purpose, so that it must come again."""
    is_refused_for_good: bool = False
    """Whether its result is refused on purpose so that it must not come again."""
    policy: "Policy | None" = None
    """What says the replies that need not be the kit's own."""
    is_accepted: bool = False
    is_shared: bool = False
    """Whether another rollout has the same id, so that a call without a path may belong to either."""
    statuses: list[int] = field(default_factory=list)
    """What inits with its ``server_url`` were answered."""
    cancels: list[tuple[int, int]] = field(default_factory=list)
    """When its end was asked for, in the order of the calls, and what that was answered."""
    tools: list[dict[str, Any]] = field(default_factory=list)
    chats: list[Call] = field(default_factory=list)
    completions: list[Call] = field(default_factory=list)
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def rollout_id(self) -> str:
        """The id we gave it."""
        return str(self.init["rollout_id"])

    def was_cancelled(self, status: int) -> None:
        """Its end was asked for, and this was the answer."""
        self.cancels.append((next(_order), status))

    def changed(self) -> None:
        """Wake whoever waits."""
        # Those who wait hold the old event, which stays set; so nobody misses a change, and nobody clears another's.
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_until(self, holds: Callable[["PlayedRollout"], bool], awaited: str) -> None:
        """Wait until ``holds``.

        Raises:
            Failed: it did not within the time limit; ``awaited`` names what was waited for.
        """
        looked_at(self)
        timeout_seconds = self.patience.seconds
        try:
            async with asyncio.timeout(timeout_seconds):
                while not holds(self):
                    await self._changed.wait()
        except TimeoutError:
            seen = self.calls_in_words + self._silence_in_words(timeout_seconds)
            seen += ", after its init was refused for want of room before" if self.was_refused_first else ""
            never_began = KEY_KEPT if self.was_refused_first else NEVER_BEGAN
            usually = NOT_DELIVERED if self._was_answered else None if self.chats else never_began
            usually = HELD_UP if self._may_go_on else usually
            usually = None if self.completions else usually
            if usually is not None:
                self.patience.lost += 1
            raise Failed(awaited, f"none within {timeout_seconds:g} s ({seen})", usually=usually) from None

    @property
    def _was_answered(self) -> bool:
        """Whether the model's last reply called no tool, so that its agent has ended."""
        return self._has_last_reply and not self._calls_tools

    @property
    def _may_go_on(self) -> bool:
        """Whether it did, so that its agent may call the model again."""
        return self._has_last_reply and self._calls_tools

    @property
    def _has_last_reply(self) -> bool:
        return bool(self.chats) and self.chats[-1] in self.answered_chats

    @property
    def _calls_tools(self) -> bool:
        return any(map(call_ids, reply_in(self.chats[-1].answer.body if self.chats[-1].answer else b"")))

    def _silence_in_words(self, seconds: float) -> str:
        """Since when none has begun at all; an empty text if others have."""
        last = self.patience.last_call
        ago = time.monotonic() - last.came_at if last else 0.0
        return f"; none has begun since {last.rollout.check_id!r}, {ago:.0f} s before" if last and ago > seconds else ""

    async def result(self) -> dict[str, Any]:
        """The first terminal result that was acknowledged.

        Raises:
            Failed: none came, or it was no JSON object.
        """
        await self.wait_until(
            lambda played: played.acknowledged is not None, "a terminal result at /v1/rollout/completed"
        )
        acknowledged = self.acknowledged
        if acknowledged is None or acknowledged.problem:
            raise Failed("a JSON object at /v1/rollout/completed", acknowledged.problem if acknowledged else "none")
        return acknowledged.fields

    async def over(self) -> None:
        """Wait for its result, however it is answered.

        Raises:
            Failed: none came.
        """
        await self.wait_until(lambda played: played.is_over, "a terminal result at /v1/rollout/completed")

    @property
    def was_refused_first(self) -> bool:
        """Whether it was accepted after there had been no room for it."""
        return 202 in self.statuses and any(status in (429, 503) for status in self.statuses)

    @property
    def calls_in_words(self) -> str:
        """How many there were."""
        return f"{len(self.chats)} chat calls and {len(self.completions)} deliveries of a result"

    @property
    def is_over(self) -> bool:
        """Whether its result has been answered as it is going to be."""
        return self.acknowledged is not None or (self.is_refused_for_good and bool(self.completions))

    @property
    def answered_chats(self) -> list[Call]:
        """The calls for a completion that got one, whole by its finish_reason."""
        return [
            call for call in self.chats if call.was_successful and is_whole(call.answer.body if call.answer else b"")
        ]

    @property
    def chats_before_result(self) -> list[Call]:
        """Without those that come after it, which are a matter of their own."""
        return [call for call in self.chats if not self.completions or call.order < self.completions[0].order]

    def contradiction(self) -> str:
        """How a later delivery differs from the one before; an empty text if all have the same content.

        The result without its messages may follow once they were refused (protocol, 5.2).
        """
        for before, again in itertools.pairwise(self.completions):
            if is_same_document(before.request.body, again.request.body):
                continue
            if not (before.refuses_body and again.is_rest_of(before)):
                where = (
                    again.difference_but_for_messages(before)
                    if before.refuses_body and not again.fields.get("final_messages")
                    else first_difference(before.request.body, again.request.body)
                )
                return f"{before.result_in_words}, then {again.result_in_words}, which differ at {where}"
        return ""

    @property
    def why_contradicted(self) -> str:
        """What usually lies behind that."""
        extra = [call.fields.get("extra_fields") for call in self.completions]
        is_cut_off = [isinstance(one, dict) and one.get("outcome") == "interrupted" for one in extra]
        return TAKEN_FOR_CUT_OFF if any(is_cut_off) and not is_cut_off[0] else MADE_ANEW

    @property
    def sent(self) -> str:
        """The init, in words."""
        return f"POST /v1/rollout/init {init_in_words(self.init)}"

    def story(self) -> str:
        """What came of it so far, in words and in order."""
        # Of those that were sent again for want of room one tells enough.
        told_twice = {n for n, (a, b) in enumerate(itertools.pairwise(self.statuses)) if a == b and a in (429, 503)}
        inits = ", ".join(str(one) for n, one in enumerate(self.statuses) if n not in told_twice) or "no answer"
        events = [(call.order, f"a call for a completion ({call.answer_in_words})") for call in self.chats]
        events += [
            (call.order, f"a result, {call.result_in_words} ({call.answer_in_words})") for call in self.completions
        ]
        events += [(order, f"its cancel (answered {status})") for order, status in self.cancels]
        told = [text for _, text in sorted(events)]
        told = [f"{count} times {one}" if (count := len(list(same))) > 1 else one for one, same in groupby(told)]
        if len(told) > MAX_TOLD_CALLS:
            told[MAX_TOLD_CALLS // 2 : -MAX_TOLD_CALLS // 2] = [f"{len(told) - MAX_TOLD_CALLS} more"]
        return "; ".join([f"the init: {inits}", *told])

    def name_of(self, call: Call) -> str:
        """Which one it is of the calls for a completion and their attempts, or of the deliveries of the result."""
        if call in self.completions:
            number = self.completions.index(call) + 1
            return f"delivery {number} of the result" if number > 1 else "the result"
        number = attempt = 1
        for before, later in itertools.pairwise(self.chats[: self.chats.index(call) + 1]):
            number, attempt = (number, attempt + 1) if later.is_attempt_after(before) else (number + 1, 1)
        return f"{f'attempt {attempt} of ' if attempt > 1 else ''}call {number} for a completion"

    @property
    def acknowledged(self) -> Call | None:
        """The first delivery that was answered 2xx."""
        return next((call for call in self.completions if call.was_successful), None)

    async def first_chat(self) -> Call:
        """The first call for a completion, or the end without one (``Failed`` says so)."""
        await self.wait_until(lambda played: bool(played.chats or played.completions), "a call to /v1/chat/completions")
        if not self.chats:
            raise Failed("a call to /v1/chat/completions", "a terminal result without one")
        return self.chats[0]
