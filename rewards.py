"""The reward: is the number after the last `####` of the answer (the GSM8K convention) the right one?"""

from typing import Any

from osmosis_ai import osmosis_reward
from osmosis_ai.rollout import final_number, is_close, read_number

TOLERANCE = 1e-7  # absolute, or relative to the ground truth


@osmosis_reward
def compute_reward(solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> float | None:
    """1.0 if the answer is right, else 0.0. None without a ground truth: 0.0 would teach that the answer is wrong."""
    if ground_truth in (None, ""):
        return None
    answer, truth = final_number(solution_str), read_number(ground_truth)
    if answer is None or truth is None:
        return 0.0
    return 1.0 if is_close(answer, truth, TOLERANCE) else 0.0
