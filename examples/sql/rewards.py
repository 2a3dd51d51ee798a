"""The reward: is the answer right, and did it take no more queries than it needs?"""

from typing import Any

QUERY_TOO_MANY = 0.1


def trajectory_reward(messages: list[dict[str, Any]], metadata: dict[str, Any]) -> float | None:
    """1.0 for the right answer, less for each query beyond the row's `queries`; 0.0 for a wrong one."""
    if "ground_truth" not in metadata:
        return None
    if str(messages[-1].get("content")).strip() != metadata["ground_truth"]:
        return 0.0
    queries: int = sum(message["role"] == "tool" for message in messages)
    too_many: int = max(0, queries - int(metadata.get("queries", queries)))
    return max(0.0, 1.0 - QUERY_TOO_MANY * too_many)
