"""The reward is 1.0 for a right answer after the last `####`, 0.0 for a wrong one, None where nothing can be compared.

How answers are read is the SDK's affair, and tested there: `is_right`, `final_number`. The table was looked through by
hand: none of its lines gives 1.0 to an answer that a reader would not call right. The ways to write one number are in
`test_reward_of_a_number.py`.
"""

# ruff: noqa: RUF001 - signs that look alike are what this is about

import inspect
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from osmosis_ai.rollout import is_comparable
from rewards import compute_reward

RIGHT = 1.0
WRONG = 0.0  # or unreadable: the prompt says how to write the answer
UNSCORABLE = None

# The ground truth, then answers after the mark.
TABLE: list[tuple[Any, dict[str, float | None]]] = [
    ("We add: $9+9=\\boxed{18}$.", {"18": RIGHT, "\\boxed{18}": RIGHT, "9": WRONG}),
    ("so it is \\boxed{\\frac{1}{2}}", {"1/2": RIGHT, "0.5": RIGHT, "2": WRONG}),
    ("So she has 18 apples left.", {"18": UNSCORABLE, "7": UNSCORABLE}),
    ("1e-9", {"1e-9": RIGHT, "0": WRONG, "5e-8": WRONG, "-1e-9": WRONG}),
    ("18 months", {"18 months": RIGHT, "18": RIGHT, "18 scores": WRONG}),
    (
        "no",
        {
            "No": RIGHT,
            "Answer: no": RIGHT,
            "**Answer:** No": RIGHT,
            "The answer is no.": RIGHT,
            "The answer is not no": WRONG,
        },
    ),
    ("18000", {"18k": RIGHT, "18e3": RIGHT, "18 000": RIGHT, "$18K": RIGHT, "18": WRONG, "18 千米": WRONG}),
    ("5!", {"120": RIGHT, "5!": RIGHT, "**5!**": RIGHT, "5": WRONG, "5!!": WRONG, "25": WRONG}),
    ("#### 5!", {"5": RIGHT, "5!": RIGHT, "120": WRONG}),
    ("120", {"120!": RIGHT, "5!": WRONG}),
    ("2^3", {"2^3": RIGHT, "2^{3}": RIGHT, "2³": RIGHT, "8": WRONG, "23": WRONG}),
    ("50%", {"50%": RIGHT, "50": RIGHT, "50 percent": RIGHT, "0.5": WRONG, "1/2": WRONG}),
    ("yes", {"Yes.": RIGHT, "YES!": RIGHT, "no": WRONG, "yes/no": WRONG, "yes and no": WRONG, "not yes": WRONG}),
    (
        "-7",
        {"-7": RIGHT, "–7": RIGHT, "\u20117": RIGHT, "－7": RIGHT, "−7": RIGHT, "- 7": RIGHT, "-$7": RIGHT, "7": WRONG},
    ),
    ("-7", {"minus 7": RIGHT, "negative 7": RIGHT, "(7)": WRONG, "+7": WRONG}),
    (
        "8000",
        {"8000": RIGHT, "8,000": RIGHT, "8 000": RIGHT, "8\u00a0000": RIGHT, "8\u202f000": RIGHT, "8\u2009000": RIGHT},
    ),
    (
        "8000",
        {
            "8\\,000": RIGHT,
            "8{,}000": RIGHT,
            "8'000": RIGHT,
            "8k": RIGHT,
            "8 thousand": RIGHT,
            "8.000": WRONG,
            "8": WRONG,
        },
    ),
    ("8,000", {"8000": RIGHT, "8": WRONG, "80,00": WRONG, "8,0000": WRONG}),
    ("18 million", {"18 million": RIGHT, "18,000,000": RIGHT, "18M": RIGHT, "$18 million": RIGHT, "18": WRONG}),
    ("0", {"0": RIGHT, "-0": RIGHT, "0.0": RIGHT, "0.00000009": RIGHT, "1": WRONG, "0.00000011": WRONG, "none": WRONG}),
    (
        "1/2",
        {
            "1/2": RIGHT,
            "0.5": RIGHT,
            ".5": RIGHT,
            "2/4": RIGHT,
            "½": RIGHT,
            "\\frac{1}{2}": RIGHT,
            "2": WRONG,
            "1": WRONG,
        },
    ),
    (
        "\\frac{1}{2}",
        {"\\frac{1}{2}": RIGHT, "\\dfrac{1}{2}": RIGHT, "0.5": RIGHT, "1/2": RIGHT, "12": WRONG, "2/1": WRONG},
    ),
    ("1 1/2", {"1 1/2": RIGHT, "1½": RIGHT, "3/2": RIGHT, "1.5": RIGHT, "11/2": WRONG, "1": WRONG}),
    ("1/3", {"1/3": RIGHT, "0.33333333": RIGHT, "0.333333": WRONG, "3": WRONG}),
    ("1000000", {"1000000.09": RIGHT, "1e6": RIGHT, "1 million": RIGHT, "1000000.11": WRONG}),
    ("12345678", {"12345678": RIGHT, "12,345,678.0": RIGHT, "12345679": WRONG, "12345670": WRONG, "1.234567e7": WRONG}),
    ("0.18", {"0.18": RIGHT, "18%": WRONG, "18": WRONG}),
    ("1234.56", {"1,234.56": RIGHT, "1.234,56": WRONG, "1 234,56": WRONG}),
    ("216", {"216": RIGHT, "18 dozen": WRONG}),
    ("18 dozen", {"216": RIGHT, "18 dozen": RIGHT, "18": WRONG}),
    ("36/2", {"18": RIGHT, "36/2": RIGHT, "72/4": WRONG}),
    ("x=18", {"x=18": RIGHT, "x = 18": RIGHT, "18": RIGHT, "x=19": WRONG}),
    (
        "Paris",
        {
            "Paris": RIGHT,
            "paris.": RIGHT,
            "**Paris**": RIGHT,
            "\\text{Paris}": RIGHT,
            "London": WRONG,
            "Paris or London": WRONG,
        },
    ),
    (
        "(1, 2)",
        {"(1, 2)": RIGHT, "(1,2)": RIGHT, "\\left(1, 2\\right)": RIGHT, "(2, 1)": WRONG, "1": WRONG, "12": WRONG},
    ),
    ("B", {"B": RIGHT, "b": RIGHT, "(B)": RIGHT, "B)": RIGHT, "**(b)**.": RIGHT}),
    ("B", {"(B": WRONG, "A": WRONG, "B or C": WRONG, "(B)(C)": WRONG, "AB": WRONG, "~~B~~": WRONG, "not B": WRONG}),
    ("x > −3", {"x > -3": RIGHT, "$x>-3$": RIGHT, "x > 3": WRONG, "x < -3": WRONG, "-3": WRONG}),
    ("x^2", {"x²": RIGHT, "x^{2}": RIGHT, "x2": WRONG, "x³": WRONG}),
    ("1816", {"1816": RIGHT, "18₁₆": WRONG}),
    (">", {">": RIGHT, "<": WRONG, ">=": WRONG}),
    ("18 or 19", {"18 or 19": RIGHT, "18": WRONG, "19 or 18": WRONG}),
    ("Seven, that is.\n#### 7", {"7": RIGHT, "Seven": WRONG}),
    (18, {"18": RIGHT, "19": WRONG}),
    (0.1, {"0.1": RIGHT, "1/10": RIGHT, "0.2": WRONG}),
    (123456789012, {"123456789012": RIGHT, "123456789013": WRONG, "1.23456789013e11": WRONG}),
    (Decimal("0.5"), {"1/2": RIGHT, "2": WRONG}),
    (True, {"true": RIGHT, "True": RIGHT, "1": WRONG, "false": WRONG}),
    (None, {"18": UNSCORABLE, "None": UNSCORABLE}),
    ("", {"": UNSCORABLE, "18": UNSCORABLE}),
    ("?", {"?": UNSCORABLE}),
    ("-", {"-": UNSCORABLE, "—": UNSCORABLE, "18": UNSCORABLE}),
    (float("nan"), {"nan": UNSCORABLE}),
    (float("inf"), {"inf": UNSCORABLE}),
    ([18], {"18": UNSCORABLE, "[18]": UNSCORABLE}),
    ({"answer": 18}, {"18": UNSCORABLE}),
]


def test_what_follows_the_last_mark_is_scored() -> None:
    for ground_truth, answers in TABLE:
        scored = {answer: compute_reward(f"It is 3 * 6.\n#### {answer}", ground_truth) for answer in answers}
        assert scored == answers, ground_truth


@pytest.mark.parametrize("answer", ["", "18", "The answer is 18.", "### 18", "Paris"])
@pytest.mark.parametrize("ground_truth", ["18", "Paris"])
def test_an_answer_without_the_mark_is_wrong(answer: str, ground_truth: str) -> None:
    assert compute_reward(answer, ground_truth) == 0.0


# As a reward function of the SDK


def test_the_arguments_may_be_named_and_the_data_source_is_dropped() -> None:
    arguments: dict[str, Any] = {"solution_str": "#### 18", "ground_truth": "18", "extra_info": {"row": 1}}
    arguments["data_source"] = "gsm8k"
    assert compute_reward(**arguments) == 1.0


def test_the_signature_is_the_classic_one() -> None:
    assert list(inspect.signature(compute_reward).parameters) == ["solution_str", "ground_truth", "extra_info"]


@given(answer=st.text(), ground_truth=st.none() | st.text() | st.integers() | st.floats() | st.booleans())
@example(answer="\ud800####\ud800", ground_truth="\ud800")
@example(answer="#### \N{ARABIC-INDIC DIGIT THREE}", ground_truth="3")
def test_the_reward_is_always_one_of_three(answer: str, ground_truth: Any) -> None:
    for text in (answer, "#### " + answer):
        assert compute_reward(text, ground_truth) in ((0.0, 1.0) if is_comparable(ground_truth) else (None,))


@pytest.mark.parametrize("answer", [None, 18, b"#### 18", ["#### 18"], {"content": "#### 18"}])
def test_an_answer_that_is_no_text_is_wrong(answer: Any) -> None:
    assert compute_reward(answer, "18") == 0.0
