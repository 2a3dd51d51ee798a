"""The reward: is the number after the last `####` of the answer (the GSM8K convention) the right one?"""

import re
from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation
from functools import wraps
from typing import Any

from osmosis_ai import osmosis_reward

TOLERANCE = Decimal("1e-7")  # absolute, or relative to the ground truth
COMPARISON = Context(prec=40, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])

# A number, alone on its line but for the Markdown, LaTeX, currency signs and words models put around it, as in
# "**$1,234.50** a day". Possessive quantifiers (`*+`) never backtrack: the time taken is linear in the text.
NUMBER = re.compile(
    r"""
    (?: [\s*_`~$€£¥₹(\[{] | \\[$(\[] | \\(?:boxed|fbox|text|textbf|mathbf|mathrm)\{ )*+
    (?P<sign> [-+\u2212]?+ ) [\s$€£¥₹\\]*+
    (?P<digits>
        [0-9]{1,3} (?: (?:,|\{,\}) [0-9]{3} )++ (?![0-9]) (?: \.[0-9]++ )?+  # 1,234.5
        | [0-9]++ (?: \.[0-9]++ )?+                                          # 1234.5
        | \.[0-9]++                                                          # .5
    )
    (?P<exponent> (?: [eE][-+]?+[0-9]++ )?+ )
    (?: [^\S\n] | [*_`~$€£¥₹%)\]}.,;] | \\[%)\]] )*+
    (?: (?: [^\W\d_] | [<(] ) [^0-9\n]*+ )?+ (?: \n | \Z )  # words, but no second number
    """,
    re.VERBOSE,
)


def parse_number(value: Any) -> Decimal | None:
    """The number that `value` is or, if it is a text, has after its last `####`; None if there is none."""
    if isinstance(value, str):
        match = NUMBER.match(value.rpartition("####")[2])
        if match is None:
            return None
        sign = "" if match["sign"] in ("", "+") else "-"
        value = sign + re.sub(r"[^0-9.]", "", match["digits"]) + match["exponent"]
    elif isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:  # an exponent beyond any use
        return None
    return number if number.is_finite() else None


def none_without_ground_truth(score: Callable[..., float]) -> Callable[..., float | None]:
    """Where there is nothing to compare with, the reward is None: 0.0 would teach the model that it was wrong."""

    @wraps(score)
    def reward(solution_str: str, ground_truth: Any = None, *args: Any, **kwargs: Any) -> float | None:
        if ground_truth in (None, ""):
            return None
        return score(solution_str, ground_truth, *args, **kwargs)

    return reward


@none_without_ground_truth  # outermost, as `osmosis_reward` lets nothing but a float pass
@osmosis_reward  # and wants exactly this signature, down to the plain `dict`
def compute_reward(solution_str: str, ground_truth: str, extra_info: dict = None) -> float:  # type: ignore[assignment, type-arg]  # noqa: RUF013
    """1.0 if the answer equals the ground truth within 1e-7, absolute or relative, else 0.0. Never raises."""
    if not isinstance(solution_str, str) or "####" not in solution_str:
        return 0.0
    answer, truth = parse_number(solution_str), parse_number(ground_truth)
    if answer is None or truth is None:
        return 0.0
    difference = COMPARISON.subtract(answer, truth).copy_abs()
    allowed = COMPARISON.multiply(TOLERANCE, max(Decimal(1), truth.copy_abs()))
    return 1.0 if difference <= allowed else 0.0
