"""One run as the results file has it."""

import math
from typing import Any

from osmosis_ai.rollout.core.reward_parts import known_components
from osmosis_ai.rollout.run.data.dataset import DatasetRow, extra_columns
from osmosis_ai.rollout.run.local_results import LocalRunResult
from osmosis_ai.rollout.run.results.entry import RunEntry, answered_calls, status_of
from osmosis_ai.rollout.run.results.results_file import Record


def record_of(run: LocalRunResult, row: DatasetRow, repeat: int, rollout_id: str) -> Record:
    """All of a run that the report, the file and a later re-scoring need."""
    reward, problem = _reward(run)
    success = run.success and problem is None
    return RunEntry(
        row_index=run.row_index,
        repeat=repeat,
        rollout_id=rollout_id,
        success=success,
        status=status_of(success),
        error=problem or run.error,
        error_kind="reward" if problem else run.error_kind,
        where=run.where,
        hint=run.hint,
        reward=reward,
        reward_components=known_components(run.result.extra_fields) if run.result and run.success else {},
        zero_reason=run.zero_reason if reward is not None and reward <= 0 else None,
        finish_reason=run.result.finish_reason if run.result else None,
        turns=run.token_usage.get("num_llm_calls", 0),
        tool_calls=run.num_tool_calls or answered_calls(run.messages),
        duration_ms=run.duration_ms,
        token_usage=run.token_usage,
        cost_usd=run.cost_usd,
        rewritten=run.rewritten,
        sampling_ignored=run.sampling_ignored,
        event_loop_blocked=run.event_loop_blocked,
        ground_truth=row["ground_truth"],
        metadata=extra_columns(row),
        messages=run.messages,
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
