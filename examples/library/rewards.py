"""The reward: how well the set of names in the answer fits the right one."""

import re

from osmosis_ai import osmosis_reward

ANSWER = re.compile(r"^answer:(.*)$", re.IGNORECASE | re.MULTILINE)


def names_in(text: str) -> set[str]:
    """The names of a list separated by semicolons, without regard to case, spaces or a full stop at the end."""
    names = (" ".join(name.split()).strip(" .").casefold() for name in text.split(";"))
    return {name for name in names if name}


@osmosis_reward
def compute_reward(solution_str: str, ground_truth: str, extra_info: dict = None) -> float:  # type: ignore[assignment, type-arg]  # noqa: RUF013 - the published signature
    """The F1 score of the names on the last `Answer:` line, from 0.0 to 1.0; 0.0 where there is no such line."""
    lines = ANSWER.findall(solution_str)
    if not lines:
        return 0.0
    given, right = names_in(lines[-1]), names_in(ground_truth)
    if not given or not right:
        return float(given == right)
    return 2 * len(given & right) / (len(given) + len(right))
