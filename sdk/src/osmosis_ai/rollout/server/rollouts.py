"""The rollouts of this process, and how they look from outside. Times are unix seconds."""

import asyncio
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from osmosis_ai.rollout.core.results import StopReason, TerminalResult, summary_of
from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema, RolloutRequest
from osmosis_ai.rollout.core.tracecontext import TraceContext
from osmosis_ai.rollout.core.watch import NO_WATCH, Phase, RolloutWatch
from osmosis_ai.rollout.journal import JournalRecord, RolloutState
from osmosis_ai.rollout.server import siblings
from osmosis_ai.rollout.server.attempts import Delivery
from osmosis_ai.rollout.server.execution import Execution
from osmosis_ai.rollout.server.terms import Terms, is_pulled, summary_of_pulled


@dataclass(eq=False)
class Rollout:
    """From its init to its acknowledgement.

    ``request`` is the agent's, which may change it as it likes.
    """

    key: str
    rollout_id: str
    server_url: str
    api_key: str | None = field(repr=False)
    request: RolloutRequest = field(repr=False)
    trace: TraceContext | None = None
    terms: Terms | None = None
    """Of a rollout of 0.3, whose trainer fetches the result."""
    tools: list[OpenAIFunctionToolSchema] = field(default_factory=list, repr=False)
    watch: RolloutWatch = NO_WATCH
    accepted_at: float = field(default_factory=time.time)
    started_at: float | None = None
    phase: Phase = Phase.QUEUED
    llm: Any = None
    execution: Execution | None = None
    slot: "asyncio.Future[Any] | None" = None
    has_slot: bool = False
    stop_reason: StopReason | None = None
    _accepted_steady: float = field(default_factory=time.monotonic)

    @property
    def age_seconds(self) -> float:
        """Since it was accepted, whatever becomes of the wall clock."""
        return time.monotonic() - self._accepted_steady

    @property
    def is_unfinished(self) -> bool:
        """Whether it has no result yet."""
        return self.phase in (Phase.QUEUED, Phase.RUNNING)

    def enter(self, phase: Phase) -> None:
        """It now stands in ``phase``."""
        self.phase = phase
        self.watch.enters(phase)

    @property
    def waits_in_vain(self) -> bool:
        """Whether nothing would come of giving it more time: it has no slot, or its trainer cannot be reached.

        One whose trainer asks for patience (503, as while weights are updated) goes on like any that runs.
        """
        return self.phase is Phase.QUEUED or self.llm.finds_nobody

    def let_go(self) -> None:
        """Only its result is left to be delivered: what else it holds may be large, and that may take a day."""
        if self.execution is not None:
            self.execution.forget()
        self.llm = self.execution = None
        del self.request

    def stop(self, reason: StopReason) -> None:
        """End it for ``reason``, wherever it stands before its delivery; the first reason stands."""
        self.stop_reason = self.stop_reason or reason  # also for a rollout that stands between slot and execution
        if self.execution is not None:
            self.execution.stop(self.stop_reason)
        elif self.slot is not None:
            self.slot.cancel()


class Rollouts:
    """Those of this process, by key, from the 202 until nothing more is to be done for them.

    Attributes:
        reserved: inits under way that may become one.
        unfinished: how many have no result yet.
        unfetched: how many results are on record that their trainers have not fetched yet.
    """

    def __init__(self) -> None:
        self.reserved = 0
        self.unfinished = 0
        self.unfetched = 0
        self._by_key: dict[str, Rollout] = {}
        self._siblings = siblings.current()

    def __len__(self) -> int:
        return len(self._by_key) + self.unfetched

    @property
    def unfinished_everywhere(self) -> int:
        """``unfinished`` of all workers together."""
        return self.unfinished if self._siblings is None else self._siblings.total

    def add(self, rollout: Rollout) -> None:
        """It has been accepted."""
        self._by_key[rollout.key] = rollout
        self._count(+1)

    def finish(self, rollout: Rollout) -> None:
        """It has its result."""
        rollout.enter(Phase.RECORDING)
        self._count(-1)

    def remove(self, rollout: Rollout) -> None:
        """This process has nothing more to do with it."""
        if rollout.is_unfinished:
            self._count(-1)
        del self._by_key[rollout.key]

    def newest(self, rollout_id: str, *, pulled: bool = False) -> Rollout | None:
        """The last one with that id, of 0.3 if ``pulled``, else of 0.2; several may share it under different keys."""
        found = (
            rollout
            for rollout in reversed(self._by_key.values())
            if rollout.rollout_id == rollout_id and pulled is (rollout.terms is not None)
        )
        return next(found, None)

    def ids(self, *, pulled: bool) -> set[str]:
        """Of all of them, those of 0.3 if ``pulled``, else those of 0.2."""
        return {rollout.rollout_id for rollout in self._by_key.values() if pulled is (rollout.terms is not None)}

    def without_result(self) -> list[Rollout]:
        """Those that have no result yet."""
        return [rollout for rollout in self._by_key.values() if rollout.is_unfinished]

    @property
    def has_unrecorded(self) -> bool:
        """Whether there is a result that is not on record yet."""
        return any(rollout.phase is Phase.RECORDING for rollout in self._by_key.values())

    def _count(self, more: int) -> None:
        self.unfinished += more
        self.announce()

    def announce(self) -> None:
        """Tell the other workers how much there is to do here."""
        if self._siblings is not None:
            self._siblings.note(self.unfinished)


def view_of_rollout(rollout: Rollout) -> dict[str, Any]:
    """What is known of a rollout that has no result yet, as JSON."""
    return {
        "rollout_id": rollout.rollout_id,
        "state": rollout.phase.value,
        "accepted_at": rollout.accepted_at,
        "started_at": rollout.started_at,
    }


def view_of_delivery(rollout: Rollout, delivery: Delivery | None) -> dict[str, Any]:
    """What this process knows of a rollout whose result it has put on record, where the journal cannot be asked."""
    return {
        "rollout_id": rollout.rollout_id,
        "state": RolloutState.FINISHED.value,
        "accepted_at": rollout.accepted_at,
        "delivery_attempts": 0 if delivery is None else delivery.attempts,
        "last_error": None if delivery is None else delivery.problem,
    }


def view_of_record(record: JournalRecord, result: bytes | None, delivery: Delivery | None) -> dict[str, Any]:
    """What the journal knows of a rollout, as JSON: no secret, and of the result a summary.

    ``delivery`` is the one of this process, if it is under way here: it knows more than the journal.
    """
    view: dict[str, Any] = {
        "rollout_id": record.rollout_id,
        "state": record.state.value,
        "accepted_at": record.accepted_at,
        "finished_at": record.finished_at,
        "settled_at": record.settled_at,
        "delivery_attempts": record.delivery_attempts,
        "last_error": record.last_error,
    }
    if delivery is not None and record.state is RolloutState.FINISHED:
        view |= {"delivery_attempts": delivery.attempts, "last_error": delivery.problem or record.last_error}
    if result is not None:
        # Decoded anew for each question: questions are rare, and results of other processes are bytes only.
        payload = TerminalResult(result).payload
        if is_pulled(record.key):
            return view | {"result": summary_of_pulled(payload)}
        view["result"] = asdict(summary_of(payload)) | {"num_messages": len(payload["final_messages"])}
    return view
