"""Batches of rollouts through the server: dispatched together, each with its trajectory, reward and tool verdict.

A sample that fails is dispatched again under a new id, a bounded number of times. What does not end COMPLETED with a
reward has none: it is counted, and never becomes a reward of 0.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.run.data.dataset import DatasetRow, dataset_row_to_request
from osmosis_ai.rollout.trainer import Ending, RedispatchPolicy, RolloutOutcome, Trainer, TrainerError
from training.policy import Policy
from training.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Task:
    """One rollout to run: ``row`` of a dataset, with the seed of its sampling."""

    rollout_id: str
    row: Mapping[str, Any]
    seed: int
    temperature: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One rollout as it went, good or bad."""

    rollout_id: str
    started_at: float
    ended_at: float
    outcome: Ending
    reward: float | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Played:
    """One task, and the rollout that ended it."""

    task: Task
    attempts: list[Attempt]
    reward: float | None
    """``None`` if no attempt was COMPLETED with a reward."""
    is_tool_right: bool
    """Whether the last tool result equals the ground truth."""
    trajectory: Trajectory
    messages: list[dict[str, Any]]
    """What the server reported as the conversation, worked examples left out."""
    finish_reason: str | None

    @property
    def is_disputed(self) -> bool:
        """Whether reward and tool disagree: a right answer from a wrong result, or a right result not answered."""
        return self.reward is not None and (self.reward >= 1) != self.is_tool_right


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutShape:
    """What all rollouts of a run have in common."""

    examples: Sequence[Mapping[str, Any]]
    max_turns: int
    max_tokens_turn: int
    context: int


class RolloutRunner:
    """Runs tasks through one trainer and one policy. ``on_played`` is told of each task when it has ended."""

    def __init__(
        self,
        trainer: Trainer,
        policy: Policy,
        shape: RolloutShape,
        redispatch: RedispatchPolicy,
        on_played: Callable[[Played], None] = lambda played: None,
    ) -> None:
        self._trainer = trainer
        self._policy = policy
        self._shape = shape
        self._redispatch = redispatch
        self._on_played = on_played

    async def run(self, tasks: Sequence[Task]) -> list[Played]:
        """Run all tasks at once, as far as the trainer has room; results in their order.

        Raises:
            TrainerError: if the server refused every one of them, as with a wrong key.
        """
        played = list(await asyncio.gather(*map(self._play, tasks)))
        last = [one.attempts[-1] for one in played]
        if last and all(attempt.outcome is Ending.REFUSED for attempt in last):
            raise TrainerError(f"The server refused all {len(last)} rollouts. {last[0].problem}")
        return played

    async def _play(self, task: Task) -> Played:
        request = self._request(task)
        attempts: list[Attempt] = []
        outcomes = await self._trainer.run_again(
            request, self._redispatch, lambda outcome: attempts.append(_attempt(outcome, time.time()))
        )
        last = outcomes[-1]
        trajectories = [self._policy.take(outcome.request.rollout_id) for outcome in outcomes]
        messages = list(last.result.final_messages) if last.result else []
        messages = messages[len(request.messages) - 1 :] if messages else messages
        played = Played(
            task=task,
            attempts=attempts,
            reward=last.reward,
            is_tool_right=last_tool_result_is(messages, task.row.get("ground_truth")),
            trajectory=trajectories[-1],
            messages=messages,
            finish_reason=last.finish_reason,
        )
        self._on_played(played)
        return played

    def _request(self, task: Task) -> RolloutRequest:
        row = DatasetRow(**task.row)  # type: ignore[typeddict-item]
        request = dataset_row_to_request(
            row,
            0,
            max_turns=self._shape.max_turns,
            max_tokens_total=self._shape.context,
            completion_params={
                "temperature": task.temperature,
                "max_tokens": self._shape.max_tokens_turn,
                "seed": task.seed,
            },
            rollout_id=task.rollout_id,
        )
        system, user = request.messages
        return request.model_copy(update={"messages": [system, *map(dict, self._shape.examples), user]})


def _attempt(outcome: RolloutOutcome, ended_at: float) -> Attempt:
    return Attempt(
        outcome.request.rollout_id,
        ended_at - outcome.latency_seconds,
        ended_at,
        outcome.outcome,
        outcome.reward,
        outcome.problem,
    )


def last_tool_result_is(messages: Sequence[Mapping[str, Any]], ground_truth: object) -> bool:
    """Whether the last tool message says the number ``ground_truth``."""
    results = [message.get("content") for message in messages if message.get("role") == "tool"]
    if not results:
        return False
    try:
        return Decimal(str(results[-1])) == Decimal(str(ground_truth))
    except InvalidOperation:
        return str(results[-1]) == str(ground_truth)


def outcomes_of(batch: Sequence[Played]) -> Counter[str]:
    """How many attempts of a batch ended how."""
    return Counter(attempt.outcome.value for played in batch for attempt in played.attempts)
