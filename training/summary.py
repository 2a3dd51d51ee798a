"""Batches of rollouts as records: one line a step, one entry an evaluation, a few transcripts."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from training.rollouts import Played, outcomes_of

TRANSCRIPTS = 8


def mean_of(values: Sequence[float]) -> float | None:
    """The mean, ``None`` of nothing."""
    return round(fmean(values), 4) if values else None


def step_record(step: int, groups: Sequence[Sequence[Played]], stats: Mapping[str, float] | None) -> dict[str, Any]:
    """One line of ``steps.jsonl``; ``stats`` are those of the loss, if anything was learned."""
    played = [one for group in groups for one in group]
    rewarded = [one for one in played if one.reward is not None]
    return {
        "step": step,
        "reward": mean_of([one.reward or 0.0 for one in rewarded]),
        "tool_right": mean_of([float(one.is_tool_right) for one in rewarded]),
        "disputed": [
            {"rollout_id": one.attempts[-1].rollout_id, "reward": one.reward, "messages": one.messages}
            for one in rewarded
            if one.is_disputed
        ],
        "rollouts": len(played),
        "rewarded": len(rewarded),
        "outcomes": dict(outcomes_of(played)),
        "sampled_tokens": mean_of([float(one.trajectory.sampled_count) for one in rewarded]),
        "rewrites": sum(one.trajectory.rewrites for one in played),
        "groups_without_spread": sum(len({one.reward for one in group} - {None}) < 2 for group in groups),
        "train": stats,
    }


def summarized(played: Sequence[Played]) -> dict[str, Any]:
    """One evaluation of one held-out set."""
    rewarded = [one for one in played if one.reward is not None]
    return {
        "rollouts": len(played),
        "rewarded": len(rewarded),
        "reward": mean_of([one.reward or 0.0 for one in rewarded]),
        "tool_right": mean_of([float(one.is_tool_right) for one in rewarded]),
        "disputed": sum(one.is_disputed for one in rewarded),
        "sampled_tokens": mean_of([float(one.trajectory.sampled_count) for one in rewarded]),
        "outcomes": dict(outcomes_of(played)),
        "transcripts": [transcript(one) for one in _shown(rewarded)],
    }


def _shown(rewarded: Sequence[Played]) -> list[Played]:
    """The first few, and the disputed ones, of which the report must show some."""
    first = list(rewarded[:TRANSCRIPTS])
    return first + [one for one in rewarded[TRANSCRIPTS:] if one.is_disputed][:TRANSCRIPTS]


def transcript(played: Played) -> dict[str, Any]:
    """One rollout for the report."""
    return {
        "rollout_id": played.attempts[-1].rollout_id,
        "ground_truth": played.task.row.get("ground_truth"),
        "reward": played.reward,
        "tool_right": played.is_tool_right,
        "messages": played.messages,
    }
