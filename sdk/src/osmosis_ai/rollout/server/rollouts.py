"""A rollout of this process, and how it looks from outside. Times are unix seconds."""

import asyncio
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.results import StopReason, TerminalResult, summary_of
from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema, RolloutRequest
from osmosis_ai.rollout.core.tracecontext import TraceContext
from osmosis_ai.rollout.core.watch import NO_WATCH, Phase, RolloutWatch
from osmosis_ai.rollout.journal import JournalRecord
from osmosis_ai.rollout.server.delivery import Delivery
from osmosis_ai.rollout.server.execution import Execution

if TYPE_CHECKING:
    from osmosis_ai.rollout.observe.traces.recorder import TracedRollout


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
    tools: list[OpenAIFunctionToolSchema] = field(default_factory=list, repr=False)
    watch: RolloutWatch = NO_WATCH
    traced: "TracedRollout | None" = None
    accepted_at: float = field(default_factory=time.time)
    started_at: float | None = None
    finished_at: float | None = None
    phase: Phase = Phase.QUEUED
    delivery: Delivery | None = None
    llm: Any = None
    execution: Execution | None = None
    slot: "asyncio.Future[Any] | None" = None
    has_slot: bool = False
    stop_reason: StopReason | None = None

    @property
    def is_unfinished(self) -> bool:
        """Whether it has no result yet."""
        return self.phase in (Phase.QUEUED, Phase.RUNNING)

    def enter(self, phase: Phase) -> None:
        """It now stands in ``phase``."""
        self.phase = phase
        self.watch.enters(phase)

    def stop(self, reason: StopReason) -> None:
        """End it for ``reason``, wherever it stands before its delivery; the first reason stands."""
        self.stop_reason = self.stop_reason or reason
        if self.execution is not None:
            self.execution.stop(self.stop_reason)
        elif self.slot is not None:
            self.slot.cancel()


def view_of_rollout(rollout: Rollout) -> dict[str, Any]:
    """What is known of a rollout that has no result yet, as JSON."""
    return {
        "rollout_id": rollout.rollout_id,
        "state": rollout.phase.value,
        "accepted_at": rollout.accepted_at,
        "started_at": rollout.started_at,
    }


def view_of_record(record: JournalRecord) -> dict[str, Any]:
    """What the journal knows of a rollout, as JSON: no secret, and of the result a summary."""
    view: dict[str, Any] = {
        "rollout_id": record.rollout_id,
        "state": record.state.value,
        "accepted_at": record.accepted_at,
        "finished_at": record.finished_at,
        "settled_at": record.settled_at,
        "delivery_attempts": record.delivery_attempts,
        "last_error": record.last_error,
    }
    if record.result is not None:
        payload = TerminalResult(record.result).payload
        view["result"] = asdict(summary_of(payload)) | {"num_messages": len(payload["final_messages"])}
    return view
