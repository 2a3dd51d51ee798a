"""The reward is 1.0 for a right answer after the last `####`, 0.0 for a wrong one, None where nothing can be compared.

How answers are read is the SDK's affair, and tested there: `is_right`, `final_number`. The table was looked through by
hand: none of its lines gives 1.0 to an answer that a reader would not call right.
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
    (
        "18",
        {
            "18": RIGHT,
            "18.0": RIGHT,
            "018": RIGHT,
            "+18": RIGHT,
            " 18 ": RIGHT,
            "\n18": RIGHT,
            "18.": RIGHT,
            "18!": RIGHT,
            "18,": RIGHT,
            '"18"': RIGHT,
            "'18'": RIGHT,
            "**18**": RIGHT,
            "`18`": RIGHT,
            "$18": RIGHT,
            "$18.00": RIGHT,
            "18€": RIGHT,
            "USD 18": RIGHT,
            "18 USD": RIGHT,
            "18%": RIGHT,
            "18°": RIGHT,
            "18 °C": RIGHT,
            "≈ 18": RIGHT,
            "= 18": RIGHT,
            "x = 18": RIGHT,
            "\\boxed{18}": RIGHT,
            "$\\boxed{18}$": RIGHT,
            "\\(18\\)": RIGHT,
            "\\[ 18 \\]": RIGHT,
            "18 apples": RIGHT,
            "18 apples and oranges": RIGHT,
            "18 (apples)": RIGHT,
            "18 m": RIGHT,
            "18 m²": RIGHT,
            "18 km/h": RIGHT,
            "18 dollars a day": RIGHT,
            "18\n\nI hope that helps!": RIGHT,
            "18<|im_end|>": RIGHT,
            "1.8e1": RIGHT,
            "1.8 × 10^1": RIGHT,
            "18 in": RIGHT,
            "18 yen": RIGHT,
            "18 m^2": RIGHT,
            "18 千克": RIGHT,
            "18 рублей": RIGHT,
            "18 ✅": RIGHT,
            "18 - that's it": RIGHT,
            "18 in total": RIGHT,
            "18 to the nearest whole number": RIGHT,
            "18\n\nThousands of thanks!": RIGHT,
            "18~\\text{cm}": RIGHT,
            "$18 m$": RIGHT,
            "Answer: 18": RIGHT,
            "**Final answer:** $18": RIGHT,
            "The answer is \\boxed{18}.": RIGHT,
            "1️⃣8️⃣": RIGHT,
            "𝟏𝟖": RIGHT,
            "\u200b18\u200b": RIGHT,
            "１８": RIGHT,
            "17\n#### 18": RIGHT,
            "18.00000001": RIGHT,
            "19": WRONG,
            "-18": WRONG,
            "–18": WRONG,
            "1.8": WRONG,
            "180": WRONG,
            "18.1": WRONG,
            "1,8": WRONG,
            "18k": WRONG,
            "18 K": WRONG,
            "18M": WRONG,
            "18 thousand": WRONG,
            "18 million": WRONG,
            "18 bn": WRONG,
            "18 hundred": WRONG,
            "18 dozen": WRONG,
            "18万": WRONG,
            "18 gross": WRONG,
            "18 and a half": WRONG,
            "18½": WRONG,
            "18 1/2": WRONG,
            "18x": WRONG,
            "18 y": WRONG,
            "18i": WRONG,
            "18π": WRONG,
            "18\\pi": WRONG,
            "18^2": WRONG,
            "18²": WRONG,
            "18 squared": WRONG,
            "18e1": WRONG,
            "18 + tax": WRONG,
            "18 - y": WRONG,
            "18 ± 1": WRONG,
            "18 or 19": WRONG,
            "18 or so": WRONG,
            "18, 19": WRONG,
            "18 19": WRONG,
            "18:00": WRONG,
            "18/19": WRONG,
            "18/01/2020": WRONG,
            "1/18": WRONG,
            "(1, 18)": WRONG,
            "not 18": WRONG,
            "NOT 18": WRONG,
            "eighteen": WRONG,
            "NaN": WRONG,
            "": WRONG,
            "18\n#### 17": WRONG,
            "18\n#### wait": WRONG,
            # the work is left undone
            "36/2": WRONG,
            "\\frac{36}{2}": WRONG,
            "18/1": WRONG,
            "17 2/2": WRONG,
            "9 * 2": WRONG,
            # taken back, struck out, or two answers
            "18 is wrong": WRONG,
            "18 - no, wait": WRONG,
            "18 (not nineteen)": WRONG,
            "The answer is not 18": WRONG,
            "18 perhaps": WRONG,
            "~~18~~": WRONG,
            "1\u03388\u0338": WRONG,
            "18\u20dd": WRONG,
            "18<!--19-->": WRONG,
            "18 <19>": WRONG,
            "18-19": WRONG,
            "18-": WRONG,
            "18 vs nineteen": WRONG,
            "18 oder neunzehn": WRONG,
            "x=18=19": WRONG,
            "\\boxed{18}\\boxed{19}": WRONG,
            "18\\\\19": WRONG,
            # other numbers
            "18 tenths": WRONG,
            "18 halved": WRONG,
            "18 negative": WRONG,
            "$18m": WRONG,
            "18m dollars": WRONG,
            "18MM": WRONG,
            "18 grand": WRONG,
            "18 Millionen": WRONG,
            "18만": WRONG,
            "18.0.0": WRONG,
            "¹⁸": WRONG,
            "18₁₆": WRONG,
            "0x12": WRONG,
            "at least 18": WRONG,
            "> 18": WRONG,
            "- -18": WRONG,
            "\u202e81": WRONG,
            "18e3": WRONG,
            "18,0": WRONG,
            "18 000": WRONG,
            "1 8": WRONG,
            "XVIII": WRONG,
            "十八": WRONG,
            "18 USD M": WRONG,
            "18 dollars mm": WRONG,
            "18 euros bn": WRONG,
            "18조": WRONG,
            "18京": WRONG,
            "18 ダース": WRONG,
            "18キロ": WRONG,
            "18半": WRONG,
            "18割": WRONG,
            "18分の1": WRONG,
            "18 💯": WRONG,
            "18 square root": WRONG,
            "18 mills": WRONG,
            "18...19": WRONG,
            "18.333...": WRONG,
            "18!!": WRONG,
            "--18": WRONG,
        },
    ),
    (
        "18",
        {
            "١٨": RIGHT,
            "18...": RIGHT,
            "18?": RIGHT,
            "18º": RIGHT,
            "答案：18": RIGHT,
            "（18）": RIGHT,
            "【18】": RIGHT,
            "18個": RIGHT,
            "18 公里": RIGHT,
            "18원": RIGHT,
            "18\\text{ cm}^2": RIGHT,
            "18 \\mathrm{m}^3": RIGHT,
            "18 more": RIGHT,
            "18 fewer apples than Bob": RIGHT,
            "18 out of all": WRONG,
            "18\n19": RIGHT,  # a second line is not looked at: it neither helps nor harms
            "19\n18": WRONG,
            "#### 18 #### 24": WRONG,
            "18 (or 24)": WRONG,
            "18 to 24": WRONG,
            "18 through twenty": WRONG,
            "between 18 and 19": WRONG,
            "18 & 19": WRONG,
            "18 -> 24": WRONG,
            "18 | 24": WRONG,
            "x = 18 or x = 19": WRONG,
            "x=18, y=19": WRONG,
            "18 apples, 24 pears": WRONG,
            "18 apples, also XIX": WRONG,
            "18 more or less": WRONG,
            "18 apples, actually a dozen": WRONG,
            "18 apples - scratch that": WRONG,
            "18 apples? Nope": WRONG,
            "18 dollars isn’t right": WRONG,
            "18 dollars cannot be": WRONG,
            "18 euros, falsch": WRONG,
            "18 apples (a lie)": WRONG,
            "18不对": WRONG,
            "18 個ではない": WRONG,
            "18아님": WRONG,
            "18以上": WRONG,
            "18 fails": WRONG,
            "18 👎": WRONG,
            "<del>18</del>": WRONG,
            "\\cancel{18}": WRONG,
            "¬18": WRONG,
            "≠ 18": WRONG,
            "nope, 18": WRONG,
            "about 18": WRONG,
            "18ish": WRONG,
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
LINES = [(answer, truth, reward) for truth, answers in TABLE for answer, reward in answers.items()]


@pytest.mark.parametrize(("answer", "ground_truth", "reward"), LINES)
def test_what_follows_the_last_mark_is_scored(answer: str, ground_truth: Any, reward: float | None) -> None:
    assert compute_reward(f"It is 3 * 6.\n#### {answer}", ground_truth) == reward


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
