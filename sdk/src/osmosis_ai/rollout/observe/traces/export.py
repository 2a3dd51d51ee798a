"""Traces as data for fine-tuning: ``{"messages": [...], "tools": [...]}`` a line, as OpenAI takes it.

Messages are those of the result, key by key as they were delivered. What a filter or a lack leaves out is counted.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from osmosis_ai.rollout.core.reward_parts import reaches
from osmosis_ai.rollout.observe.traces.conversation import conversation_of
from osmosis_ai.rollout.observe.traces.index import TraceIndex
from osmosis_ai.rollout.observe.traces.summary import UNFINISHED, Summary


@dataclass(frozen=True)
class Filter:
    """Which rollouts are wanted; ``None`` and ``()`` want all."""

    min_reward: float | None = None
    max_reward: float | None = None
    statuses: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()

    def objection(self, rollout: Summary) -> str | None:
        """Why a rollout is not wanted, as a few words; ``None`` if it is."""
        if self.statuses and rollout.status not in self.statuses:
            return f"status {rollout.status}"
        if rollout.status == UNFINISHED:
            return "no result"
        if self.outcomes and rollout.outcome not in self.outcomes:
            return f"outcome {rollout.outcome}"
        if self.min_reward is None and self.max_reward is None:
            return None
        if rollout.reward is None:
            return "no reward"
        if self.min_reward is not None and not reaches(rollout.reward, self.min_reward):
            return f"reward below {self.min_reward:g}"
        if self.max_reward is not None and not reaches(self.max_reward, rollout.reward):
            return f"reward above {self.max_reward:g}"
        return None


class NotExportedError(Exception):
    """Raised by ``Export.also`` for a rollout that is to be left out: the reason in a few words, and in a sentence."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass
class Export:
    """One export, as it goes."""

    index: TraceIndex
    wanted: Filter
    also: Callable[[list[dict[str, Any]]], dict[str, Any]] = lambda events: {}
    """Further fields of an example, out of the rollout's events."""
    written: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    example_of: dict[str, str] = field(default_factory=dict)
    """Of a reason that has more to say: the first rollout that was left out for it, and what it said."""

    def examples(self) -> Iterator[dict[str, Any]]:
        """The wanted rollouts in the order of their files, read one at a time."""
        rollouts = self.index.rollouts
        for position in sorted(range(len(rollouts)), key=lambda at: (rollouts[at].file, rollouts[at].start)):
            if (objection := self.wanted.objection(rollouts[position])) is not None:
                self.left_out[objection] += 1
                continue
            try:
                events = list(self.index.events(position))
            except OSError:
                self.left_out["file cannot be read"] += 1
                continue
            conversation = conversation_of(events)
            if not conversation.is_final or not conversation.messages:
                self.left_out["no messages in the trace"] += 1
                continue
            example: dict[str, Any] = {"messages": conversation.messages}
            if conversation.tools:
                example["tools"] = conversation.tools
            try:
                example |= self.also(events)
            except NotExportedError as error:
                self.left_out[error.reason] += 1
                self.example_of.setdefault(error.reason, f"{rollouts[position].rollout_id}: {error}")
                continue
            self.written += 1
            yield example
