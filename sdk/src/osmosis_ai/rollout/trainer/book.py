"""The trainer's book of rollouts: what is in flight, and how each one ended.

A rollout takes exactly one way through the phases of ``_NEXT_PHASES``; the first terminal callback, or the trainer's
own patience, ends it, and nothing changes its end. The ids of ended rollouts are remembered with a fingerprint of
their result (the newest ``MAX_REMEMBERED`` of them), so that a repeat is told from a contradiction. One event loop.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from hashlib import sha256
from typing import Any

from starlette.responses import Response

from osmosis_ai.rollout.core.schemas import MessageDict, RolloutRequest, RolloutResponse, RolloutStatus
from osmosis_ai.rollout.core.transcript import MAX_NOTED, Transcript
from osmosis_ai.rollout.trainer.tokens import TokenRecorder

MAX_REMEMBERED = 1_000_000
MAX_TOLD_CHARACTERS = 500


class Phase(Enum):
    """Where a rollout stands."""

    DISPATCHING = "dispatching"
    """Its init has no reply yet."""
    RUNNING = "running"
    """The server answered 202."""
    FINISHED = "finished"
    """Its terminal callback came."""
    ABANDONED = "abandoned"
    """Refused by the server, or given up by the trainer."""


_NEXT_PHASES: dict[Phase, frozenset[Phase]] = {
    # A short rollout may finish before the reply of its init was read.
    Phase.DISPATCHING: frozenset({Phase.RUNNING, Phase.FINISHED, Phase.ABANDONED}),
    Phase.RUNNING: frozenset({Phase.FINISHED, Phase.ABANDONED}),
    Phase.FINISHED: frozenset(),
    Phase.ABANDONED: frozenset(),
}


class Delivery(Enum):
    """What a terminal callback was."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    """The same result again, which at-least-once delivery allows."""
    CONTRADICTED = "contradicted"
    """Another result for a rollout that has one."""
    LATE = "late"
    """The first result of a rollout that was abandoned."""
    UNKNOWN = "unknown"
    """No such rollout."""


class Rollout:
    """One rollout in flight."""

    def __init__(self, request: RolloutRequest) -> None:
        self.request = request
        self.phase = Phase.DISPATCHING
        self.tools: list[dict[str, Any]] = []
        self.result: RolloutResponse | None = None
        self.waiting_for = "the reply to its init"
        self.is_sent = False
        """Whether the server may know of it."""
        self.turns = 0
        self.tool_calls = 0
        self.weights_versions: list[int] = []
        """Of each turn."""
        self.tokens = TokenRecorder()
        self.lease: tuple[str, float] | None = None
        """Of a rollout of 0.3: the token of its polls, and how many seconds each waits."""
        self.was_accepted = False
        self.is_lost = False
        self.is_cancelled = False
        self.patience: asyncio.Timeout | None = None
        """Of whoever waits for its end, or for room."""
        self._left_seconds: float | None = None
        """Of a patience that stands still."""
        self.policy_failure: str | None = None
        self.replies: dict[str, asyncio.Future[Response]] = {}
        self.ended = asyncio.Event()
        self.tools_known_or_ended = asyncio.Event()
        self._transcript = Transcript()

    def start(self, tools: list[dict[str, Any]]) -> None:
        """Note the tools of the 202; nothing to do for a rollout that has finished, or was given up, by then."""
        if self.ended.is_set():
            return
        self._move_to(Phase.RUNNING)
        self.was_accepted = True
        self.tools = tools
        self.waiting_for = "its terminal callback"

    def finish(self, result: RolloutResponse) -> None:
        """Note the first terminal result."""
        self._move_to(Phase.FINISHED)
        self.result = result
        if result.status is RolloutStatus.COMPLETED and result.final_messages:
            self._transcript.check(result.final_messages)

    def abandon(self) -> None:
        """Stop waiting for a result."""
        self._move_to(Phase.ABANDONED)

    def cancel(self) -> None:
        """End it for whoever waits for it; nothing to do for one that has ended."""
        if self.ended.is_set():
            return
        self.is_cancelled = True
        self.abandon()
        if self.patience is not None and not self.patience.expired():  # its init may be under way
            self.patience.reschedule(asyncio.get_running_loop().time())

    def hold_patience(self) -> None:
        """Let no time count for its limit until `resume_patience`."""
        if self.patience is None or self.ended.is_set() or self.patience.expired():
            return
        if (ends_at := self.patience.when()) is not None:
            self._left_seconds = ends_at - asyncio.get_running_loop().time()
            self.patience.reschedule(None)

    def resume_patience(self) -> None:
        """Count on."""
        left_seconds, self._left_seconds = self._left_seconds, None
        if left_seconds is not None and self.patience is not None and not self.ended.is_set():
            self.patience.reschedule(asyncio.get_running_loop().time() + left_seconds)

    def note_messages(self, messages: list[MessageDict]) -> None:
        """Check that ``messages`` goes on from those of the call before and the reply to it."""
        self._transcript.sending(messages)

    def note_reply(self, call: list[MessageDict], reply: MessageDict) -> None:
        """Note the reply to the chat call with the messages ``call``."""
        self._transcript.replied(reply, len(call))

    @property
    def rewrites(self) -> tuple[str, ...]:
        """What the agent changed of what was said before, as seen here, or as the server tells."""
        told = self.result.extra_fields.get("messages_rewritten") if self.result else None
        texts = [text[:MAX_TOLD_CHARACTERS] for text in told if isinstance(text, str)] if isinstance(told, list) else []
        return tuple(dict.fromkeys([*self._transcript.rewritten, *texts]))[:MAX_NOTED]

    def _move_to(self, phase: Phase) -> None:
        if phase not in _NEXT_PHASES[self.phase]:
            raise ValueError(f"Rollout {self.request.rollout_id} cannot go from {self.phase.value} to {phase.value}.")
        self.phase = phase
        self.tools_known_or_ended.set()
        if not _NEXT_PHASES[phase]:
            self.ended.set()
            for reply in self.replies.values():  # still being generated: nobody will have it
                reply.cancel()


class RolloutBook:
    """All rollouts of one trainer, and a count of what the callbacks were."""

    def __init__(self) -> None:
        self.deliveries: Counter[Delivery] = Counter()
        self._in_flight: dict[str, Rollout] = {}
        self._fingerprint_of_ended: dict[str, bytes | None] = {}
        self._owed: set[str] = set()
        self._nothing_owed = asyncio.Event()

    def open(self, request: RolloutRequest) -> Rollout:
        """Enter a rollout.

        Raises:
            ValueError: if the id was used before.
        """
        rollout_id = request.rollout_id
        if rollout_id in self._in_flight or rollout_id in self._fingerprint_of_ended:
            raise ValueError(f"The rollout id {rollout_id!r} was used before; each rollout needs its own.")
        rollout = self._in_flight[rollout_id] = Rollout(request)
        return rollout

    def close(self, rollout: Rollout) -> None:
        """Forget all of a rollout but its id and its end; one that has not ended is abandoned."""
        if not rollout.ended.is_set():
            rollout.abandon()
        del self._in_flight[rollout.request.rollout_id]
        self._remember(rollout.request.rollout_id, self._fingerprint_of_ended.get(rollout.request.rollout_id))

    def find(self, rollout_id: str) -> Rollout | None:
        """The rollout in flight under ``rollout_id``."""
        return self._in_flight.get(rollout_id)

    def running(self) -> list[Rollout]:
        """The rollouts that the server has accepted and that have not ended."""
        return [rollout for rollout in self._in_flight.values() if rollout.phase is Phase.RUNNING]

    def in_flight(self, is_meant: Callable[[str], bool]) -> list[Rollout]:
        """The rollouts that have not ended and whose ids are meant."""
        return [r for rollout_id, r in self._in_flight.items() if is_meant(rollout_id) and not r.ended.is_set()]

    def has_ended(self, rollout_id: str) -> bool:
        """Whether a rollout of this id was in flight once and is no more."""
        return rollout_id in self._fingerprint_of_ended

    def await_report(self, rollout_id: str) -> None:
        """The server was told to stop this rollout, and owes the result of it."""
        self._owed.add(rollout_id)

    async def reports(self, limit_seconds: float) -> None:
        """Wait until no result is owed any more, but no longer than that."""
        self._nothing_owed.clear()
        if self._owed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nothing_owed.wait(), limit_seconds)

    def deliver(self, result: RolloutResponse, canonical_json: bytes) -> Delivery:
        """Take a terminal callback; only an ACCEPTED one has an effect on its rollout."""
        self._owed.discard(result.rollout_id)
        if not self._owed:
            self._nothing_owed.set()
        delivery = self._deliver(result, sha256(canonical_json).digest())
        self.deliveries[delivery] += 1
        return delivery

    def _deliver(self, result: RolloutResponse, fingerprint: bytes) -> Delivery:
        rollout_id = result.rollout_id
        if rollout_id in self._fingerprint_of_ended:
            known = self._fingerprint_of_ended[rollout_id]
            if known is None:
                # The first result of one that was abandoned: the next must repeat it.
                self._fingerprint_of_ended[rollout_id] = fingerprint
                return Delivery.LATE
            return Delivery.REPEATED if known == fingerprint else Delivery.CONTRADICTED
        rollout = self._in_flight.get(rollout_id)
        if rollout is None:
            return Delivery.UNKNOWN
        if rollout.ended.is_set():
            return Delivery.LATE
        rollout.finish(result)
        self._remember(rollout_id, fingerprint)
        return Delivery.ACCEPTED

    def _remember(self, rollout_id: str, fingerprint: bytes | None) -> None:
        self._fingerprint_of_ended[rollout_id] = fingerprint
        while len(self._fingerprint_of_ended) > MAX_REMEMBERED:
            del self._fingerprint_of_ended[next(iter(self._fingerprint_of_ended))]
