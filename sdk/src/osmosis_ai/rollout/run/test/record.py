"""One run as the results file has it."""

import math
from typing import Any

from osmosis_ai.rollout.core.reward_parts import known_components
from osmosis_ai.rollout.run.data.dataset import DatasetRow
from osmosis_ai.rollout.run.local_results import LocalRunResult
from osmosis_ai.rollout.run.results.entry import RunEntry, answered_calls, shared_part, status_of
from osmosis_ai.rollout.run.results.results_file import Record


def record_of(run: LocalRunResult, row: DatasetRow, repeat: int, rollout_id: str) -> Record:
    """All of a run that the report, the file and a later re-scoring need."""
    reward, problem = _reward(run)
    success = run.success and problem is None
    shared = shared_part(run, row)
    if problem:
        shared["error_kind"] = "reward"
    if reward is None or reward > 0:
        shared["zero_reason"] = None
    return RunEntry(
        row_index=run.row_index,
        repeat=repeat,
        rollout_id=rollout_id,
        success=success,
        status=status_of(success),
        error=problem or run.error,
        reward=reward,
        reward_components=known_components(run.result.extra_fields) if run.result and run.success else {},
        finish_reason=run.result.finish_reason if run.result else None,
        tool_calls=run.num_tool_calls or answered_calls(run.messages),
        messages=run.messages,
        **shared,
    ).as_json()


def _reward(run: LocalRunResult) -> tuple[float | None, str | None]:
    given: Any = run.result.reward if run.result and run.success else None
    if given is None:
        return None, None
    try:
        reward = float(given)
    except (TypeError, ValueError, OverflowError):
        return None, f"The reward is {type(given).__name__}, not a number."
    return (reward, None) if math.isfinite(reward) else (None, f"The reward is {reward}, not a finite number.")
