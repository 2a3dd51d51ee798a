"""Rewards computed anew on saved runs, without a model, beside what they were.

A run is rescored only if everything its function takes is known; otherwise the report says what was missing.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from statistics import fmean
from typing import Any

from osmosis_ai.rollout.core.judge import IMPATIENT
from osmosis_ai.rollout.core.reward_parts import reaches
from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.run.data.columns import PROMPT_MESSAGES, prompts_of
from osmosis_ai.rollout.run.data.dataset import DatasetReader
from osmosis_ai.rollout.run.evaluate.eval_fn import RESULT, EvalFnWrapper, NoRewardError, described
from osmosis_ai.rollout.run.moments import ComponentMoments
from osmosis_ai.rollout.run.results.saved_runs import SavedRun

CONCURRENT_CALLS = 64
TOLERANCE = 1e-9


class RescoringVerdict(StrEnum):
    """What became of one run."""

    RESCORED = "rescored"
    NO_REWARD = "no_reward"
    """The function returned ``None``."""
    FUNCTION_FAILED = "function_failed"
    NOT_RESCORABLE = "not_rescorable"


@dataclass(frozen=True)
class Rescored:
    """One run, before and after."""

    source: str
    row_index: int | None
    repeat: int | None
    rollout_id: str | None
    verdict: RescoringVerdict
    reward_before: float | None
    reward_after: float | None = None
    problem: str | None = None
    components_before: dict[str, float] = field(default_factory=dict)
    components_after: dict[str, float] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether the reward is another one, or came or went."""
        if self.verdict not in (RescoringVerdict.RESCORED, RescoringVerdict.NO_REWARD):
            return False
        before, after = self.reward_before, self.reward_after
        return before != after if before is None or after is None else abs(after - before) > TOLERANCE


class RescoringReport:
    """Grows by one run at a time; its means are over the same runs: those with a reward before and after."""

    def __init__(self, pass_threshold: float = 1.0) -> None:
        self.pass_threshold = pass_threshold
        self.runs: list[Rescored] = []
        self.verdicts: Counter[RescoringVerdict] = Counter()
        self.problems: Counter[tuple[RescoringVerdict, str]] = Counter()
        self.components_before = ComponentMoments()
        self.components_after = ComponentMoments()

    def add(self, run: Rescored) -> None:
        """Count one run."""
        self.runs.append(run)
        self.verdicts[run.verdict] += 1
        if run.verdict is RescoringVerdict.RESCORED:
            self.components_before.add(run.components_before)
            self.components_after.add(run.components_after)
        if run.problem is not None:
            self.problems[run.verdict, run.problem] += 1

    @property
    def changed(self) -> list[Rescored]:
        """Runs whose reward is another one."""
        return [run for run in self.runs if run.changed]

    @property
    def flipped(self) -> list[Rescored]:
        """Runs that passed and no longer do, or the other way round."""
        return [run for run in self._compared() if self._passes(run.reward_before) != self._passes(run.reward_after)]

    def _passes(self, reward: float | None) -> bool:
        return reward is not None and reaches(reward, self.pass_threshold)

    def _compared(self) -> list[Rescored]:
        return [run for run in self.runs if run.reward_before is not None and run.reward_after is not None]

    def summary(self) -> dict[str, Any]:
        """The totals as JSON; means are null where no run has a reward before and after."""
        compared = self._compared()
        flipped = self.flipped
        return {
            "runs": len(self.runs),
            **{verdict.value: self.verdicts[verdict] for verdict in RescoringVerdict},
            "compared": len(compared),
            "mean_reward": fmean(run.reward_after or 0.0 for run in compared) if compared else None,
            "mean_reward_before": fmean(run.reward_before or 0.0 for run in compared) if compared else None,
            "reward_components": self.components_after.as_json(),
            "reward_components_before": self.components_before.as_json(),
            "changed": len(self.changed),
            "gained_reward": sum(run.changed and run.reward_before is None for run in self.runs),
            "lost_reward": sum(run.changed and run.reward_after is None for run in self.runs),
            "pass_threshold": self.pass_threshold,
            "now_pass": sum(self._passes(run.reward_after) for run in flipped),
            "now_fail": sum(self._passes(run.reward_before) for run in flipped),
            "errors": [
                {"kind": verdict.value, "text": text, "count": count}
                for (verdict, text), count in self.problems.most_common()
            ],
        }


def as_json(run: Rescored) -> dict[str, Any]:
    """One run as JSON: as it is now under the names of ``RunEntry``, beside what it was."""
    return {
        "row_index": run.row_index,
        "repeat": run.repeat,
        "rollout_id": run.rollout_id,
        "success": run.verdict in (RescoringVerdict.RESCORED, RescoringVerdict.NO_REWARD),
        "error": run.problem,
        "reward": run.reward_after,
        "reward_components": run.components_after,
        "reward_before": run.reward_before,
        "reward_components_before": run.components_before,
        "changed": run.changed,
        "verdict": run.verdict.value,
        "source": run.source,
    }


class GroundTruths:
    """The rows of a dataset by number and by prompt, for runs that were saved without their ground truth.

    Raises:
        CLIError: none of its rows can be used, or the file cannot be read to its end.
    """

    def __init__(self, dataset: DatasetReader) -> None:
        self._rows = {number: dict(row) for number, row in dataset.usable_rows()}
        if not self._rows:
            raise CLIError(dataset.check().error() or f"{dataset.file_path} has no rows.")
        self._by_prompt: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in self._rows.values():
            self._by_prompt.setdefault(_prompt_of(row), []).append(row)

    def row_of(self, run: SavedRun) -> dict[str, Any] | str:
        """The row of ``run``, or why there is none."""
        prompt = _prompt_of(prompts_of(run.messages or []))
        if run.row_index is None:
            rows = self._by_prompt.get(prompt, [])
            if not rows:
                return "no row of the dataset has its prompt"
            if any(row["ground_truth"] != rows[0]["ground_truth"] for row in rows):
                return "rows of the dataset with its prompt have different ground truths"
            return rows[0]
        if run.row_index not in self._rows:
            return "the dataset has no row of its number that can be used"
        row = self._rows[run.row_index]
        return row if _prompt_of(row) == prompt else "the dataset's row of its number has another prompt"


def _prompt_of(columns: Mapping[str, Any]) -> tuple[str, ...]:
    if messages := columns.get(PROMPT_MESSAGES):
        columns = prompts_of(messages)
    return columns.get("system_prompt", ""), columns.get("user_prompt", "")


async def rescore(
    runs: Iterable[SavedRun],
    reward_fn: EvalFnWrapper,
    ground_truths: GroundTruths | None = None,
    pass_threshold: float = 1.0,
) -> RescoringReport:
    """Compute the reward of every run that allows it, in their order; calls of coroutine functions overlap."""
    IMPATIENT.set(True)
    report = RescoringReport(pass_threshold)
    waiting, at_a_time = iter(runs), CONCURRENT_CALLS if reward_fn.is_async else 1
    while batch := list(islice(waiting, at_a_time)):
        for run in await asyncio.gather(*(_rescored(run, reward_fn, ground_truths) for run in batch)):
            report.add(run)
    return report


async def _rescored(run: SavedRun, reward_fn: EvalFnWrapper, ground_truths: GroundTruths | None) -> Rescored:
    before = run.scores.get(reward_fn.name, run.reward)

    components = run.components.get(reward_fn.name, {}) if reward_fn.name in run.scores else run.reward_components

    def ended(verdict: RescoringVerdict, reward: float | None = None, problem: str | None = None) -> Rescored:
        after, parts = None if reward is None else float(reward), getattr(reward, "components", {})
        place = (run.source, run.row_index, run.repeat, run.rollout_id)
        return Rescored(*place, verdict, before, after, problem, components, parts)

    problem = _missing_conversation(run)
    if problem is not None:
        return ended(RescoringVerdict.NOT_RESCORABLE, problem=problem)
    if reward_fn.takes(RESULT) and run.result is None:
        return ended(RescoringVerdict.NOT_RESCORABLE, problem="its result was not saved, only its messages")
    ground_truth, metadata = run.ground_truth, run.metadata
    if reward_fn.takes("ground_truth") and ground_truth is None:
        if ground_truths is None:
            return ended(
                RescoringVerdict.NOT_RESCORABLE, problem="its ground truth was not saved; name the dataset with -d"
            )
        row = ground_truths.row_of(run)
        if isinstance(row, str):
            return ended(RescoringVerdict.NOT_RESCORABLE, problem=row)
        ground_truth, metadata = row["ground_truth"], row
    columns = {**prompts_of(run.messages or []), "ground_truth": ground_truth, **(metadata or {})}
    try:
        reward = await reward_fn.call_here(run.messages or [], ground_truth, columns, run.result)
    except NoRewardError:
        return ended(RescoringVerdict.NO_REWARD)
    except Exception as error:  # noqa: BLE001 - it is the author's code, and the other runs go on
        return ended(RescoringVerdict.FUNCTION_FAILED, problem=described(error))
    return ended(RescoringVerdict.RESCORED, reward)


def _missing_conversation(run: SavedRun) -> str | None:
    if not run.completed:
        return "it did not complete, so it has no reward"
    if run.messages is None:
        return "its trace holds only summaries of messages" if run.has_summaries else "its conversation was not saved"
    return None
