"""The reward: is what follows the last `####` of the answer (the GSM8K convention) right?"""

from typing import Any

from osmosis_ai import osmosis_reward
from osmosis_ai.rollout import is_right


@osmosis_reward
def compute_reward(solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> float | None:
    """1.0 if the answer is right, else 0.0. None where nothing can be compared: 0.0 would teach that it is wrong."""
    right = is_right(solution_str, ground_truth)
    return None if right is None else float(right)
