"""The number after the last `####`, however a model dresses it: every digit of it, or none where it may be another."""

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from osmosis_ai.rollout import final_number, is_right

DRESSED = [
    "#### 18",
    "####18",
    "####\n18",
    "#####18",
    "It is 3 * 6.\n#### 18\n\nI hope that helps!",
    "#### 18.",
    "#### 18.00",
    "#### 018",
    "#### +18",
    "#### 1.8e1",
    "#### 1.8E+01",
    "#### 180e-1",
    "#### $18",
    "#### $ 18",
    "#### $18.00.",
    "#### €18",
    "#### 18€",
    "#### £18",
    "#### 18%",
    "#### 18 %",
    "#### **18**",
    "**#### 18**",
    "#### __18__",
    "#### `18`",
    "#### *$18*",
    "#### $18$",
    "#### $$18$$",
    "#### \\$18",
    "#### 18\\%",
    "#### \\(18\\)",
    "#### \\[18\\]",
    "#### \\[\n18\n\\]",
    "#### \\boxed{18}",
    "#### $\\boxed{18}$.",
    "#### **\\boxed{\\text{18}}**",
    "#### {18}",
    "#### (18)",
    "#### 18 apples",
    "#### 18 (apples)",
    "#### **18** apples a day.",
    "#### 18<|im_end|>",
    "#### 18</s>",
    '#### "18"',
    "#### \N{LEFT DOUBLE QUOTATION MARK}18\N{RIGHT DOUBLE QUOTATION MARK}",
    "#### 18!",
    "#### 18°",
    "#### 18 °C",
    "#### 18^\\circ",
    "#### USD 18",
    "#### 18 USD",
    "#### US$18",
    "#### ≈ 18",
    "#### \\approx 18",
    "#### = 18",
    "#### x = 18",
    "#### \N{ZERO WIDTH SPACE}18\N{ZERO WIDTH SPACE}",
    "#### \N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT EIGHT}",
    "#### \N{ARABIC-INDIC DIGIT ONE}\N{ARABIC-INDIC DIGIT EIGHT}",
    "#### 18 m",
    "#### 18 m^2",
    "#### 18 cm²",
    "#### 18 cm3",
    "#### 18 km/h",
    "#### 18 percent",
    "#### 18 apples and oranges",
    "#### 18th",
    "#### 18 - done.",
    "#### Answer: 18",
    "#### The final answer is **18**.",
    "#### 18 inches",
    "#### 18 in",
    "#### 18 yen",
    "#### 18 o'clock",
    "#### 18\nMillions of thanks!",
    "#### 1.8 x 10^1",
    "#### 1.8 \\times 10^{1}",
    "#### 1.8 \\cdot 10^1",
    "#### 2 + 16 = 18",
    "#### $2 + $16 = $18.",
    "#### \\boxed{2 + 16 = 18}",
    "#### \\(2 \\times 9 = 18\\)",
    "#### x = 3 x 6 = 18 apples",
    "#### 36/2 = 18",
    "#### **20 - 2 = 18**",
    "#### 1,018 - 1,000 = 18",
]


def test_the_right_number_counts_however_it_is_dressed() -> None:
    assert [answer for answer in DRESSED if final_number(answer) != 18] == []


READ = {
    "#### 1,234": "1234",
    "#### 1,234,567.89": "1234567.89",
    "#### $1,234.50": "1234.5",
    "#### 1{,}234": "1234",
    "#### -7": "-7",
    "#### \N{MINUS SIGN}7": "-7",
    "#### - 7": "-7",
    "#### -$7": "-7",
    "#### $-7$": "-7",
    "#### .5": "0.5",
    "#### \N{EN DASH}7": "-7",
    "#### \N{NON-BREAKING HYPHEN}7": "-7",
    "#### \N{FULLWIDTH HYPHEN-MINUS}7": "-7",
    "#### minus 7": "-7",
    "#### negative 7": "-7",
    "#### 8 000": "8000",
    "#### 8\N{NO-BREAK SPACE}000": "8000",
    "#### 8\N{NARROW NO-BREAK SPACE}000\N{NARROW NO-BREAK SPACE}000": "8000000",
    "#### 8\N{THIN SPACE}000.5": "8000.5",
    "#### 8\\,000": "8000",
    "#### 8'000": "8000",
    "#### 8_000": "8000",
    "#### 18k": "18000",
    "#### 18 K": "18000",
    "#### 18M": "18000000",
    "#### 18 thousand": "18000",
    "#### $1.8 million dollars": "1800000",
    "#### 18 billion": "18000000000",
    "#### 18 bn": "18000000000",
    "#### 18 trillion": "18000000000000",
    "#### 18 hundred": "1800",
    "#### 18 lakh": "1800000",
    "#### 18万": "180000",
    "#### **18** thousand": "18000",
    "#### 1/2": "0.5",
    "#### -1/2": "-0.5",
    "#### 1\N{FRACTION SLASH}2": "0.5",
    "#### 1 1/2 cups": "1.5",
    "#### -1 1/2": "-1.5",
    "#### \\frac{1}{2}": "0.5",
    "#### -\\frac{1}{2}": "-0.5",
    "#### \\frac{-1}{2}": "-0.5",
    "#### 1\\frac{1}{2}": "1.5",
    "#### \\frac12": "0.5",
    "#### \\dfrac 3 4": "0.75",
    "#### \\frac3{4}": "0.75",
    "#### -\\frac{3}4": "-0.75",
    "#### 1\\frac12": "1.5",
    "#### ½": "0.5",
    "#### 1½": "1.5",
    "#### 1,235/2": "617.5",
    "#### -.5": "-0.5",
    "#### -0": "0",
    "#### 0.0000123": "0.0000123",
    "#### 111111111011111111100": "111111111011111111100",
}


def test_signs_separators_and_fractions_are_read() -> None:
    assert {answer: final_number(answer) for answer in READ} == {answer: Decimal(READ[answer]) for answer in READ}


NO_ONE_NUMBER = [
    "",
    "18",
    "The answer is 18.",
    "#### ",
    "####",
    "#### eighteen",
    "#### NaN",
    "#### Infinity",
    "#### -",
    "#### $",
    "#### 18 19",
    "#### 18x",
    "#### 18 x",
    "#### 18xy",
    "#### 18a",
    "#### 18i",
    "#### 18π",
    "#### 18\\pi",
    "#### 18 pi",
    "#### 18²",
    "#### 18 - y",
    "#### 18 + tax",
    "#### 18 = total",
    "#### 18 ± 2",
    "#### 18 < y",
    "#### 18 plus tax",
    "#### 18 minus tax",
    "#### 18 times as many",
    "#### 18 and a half",
    "#### 18 hours and a quarter",
    "#### 18 and",
    "#### 18 hundred thousand",
    "#### 18 hundred and one",
    "#### 18 dollars and fifty cents",
    "#### 18 point five",
    "#### 18 squared",
    "#### 18 mil",
    "#### 18 gross",
    "#### 18一",
    "#### 18ⅳ",
    "#### NOT 18",
    "#### 18 not",
    "#### 18/01",
    "#### 18/1/2020",
    "#### 1/0",
    "#### \\frac{1}{0}",
    "#### (18, 1)",
    "#### [18, 1]",
    "#### \\sqrt{18}",
    "#### 18 or 19",
    "#### 1,8",
    "#### 1.8.0",
    "#### 18^1",
    "#### 18 * 1",
    "#### 18:00",
    "### 18",
    "#### 18 ####",
    "#### 18\n#### wait",
    "#### 36/2",
    "#### -36/2",
    "#### \\frac{36}{2}",
    "#### \\dfrac{18}{1}",
    "#### 17 2/2",
    "#### 18 dozen eggs",
    "#### 18 dozens of eggs",
    "#### \\frac123",
    "#### \\frac12.5",
    "#### \\frac10",
    "#### 18 = 2 * 9",
    "#### 17 = 18",
    "#### 3x = 18",
    "#### 2 + 16 != 18",
    "#### 2 + 16 >= 18",
    "#### 17, 2 + 16 = 18",
    "#### 17 or 2 + 16 = 18",
    "#### 2 + 16 = 18 or 19",
    "#### 2 + 16 = 36/2",
    "#### 2 + 16 is not = 18",
]


def test_anything_but_one_number_after_the_last_mark_is_none() -> None:
    assert [answer for answer in NO_ONE_NUMBER if final_number(answer) is not None] == []


@pytest.mark.parametrize("text", ["1234,567", "1,2345", "12,34,567", "1,,234", ",234", "1,234,56"])
def test_misplaced_separators_make_no_number(text: str) -> None:
    assert final_number(f"#### {text}") is None


def test_the_last_mark_decides() -> None:
    assert final_number("#### 17\nNo:\n#### 18") == 18
    assert final_number("#### 18\nNo:\n#### 17") == 17


def test_every_digit_is_kept() -> None:
    assert final_number(f"#### 0.{'1' * 5000}") == Decimal(f"0.{'1' * 5000}")


def test_a_number_beyond_any_use_is_none() -> None:
    assert final_number("#### 1e99999999999999999999") is None


NO_UNITS = """
    quadrillion, quintillion, zillion, milion, triliion, thousnd, billons, dz, doz., tens, fives, twos, kilo
    hundredfold
    mm dollars, \u0442\u044b\u0441\u044f\u0447, tysi\u0119cy, miljoen, duizend, tusen, mila, milioni, milyon, juta, ribu
    tri\u1ec7u, \u0623\u0644\u0641, \u0e1e\u0e31\u0e19, quarters, elevenths, twentieths, basis points, in binary
    hexadecimal, (octal), repeating, sin x, phi, dx, cannot be right, isn't it, invalid, untrue, error, per
"""


def test_words_that_are_no_unit_make_it_another_number_or_none() -> None:
    for words in re.split(r"[,\n]\s*", NO_UNITS.strip()):
        assert is_right(f"#### 18 {words}", "18") is False
        assert is_right(f"#### {words}", words) is True


@pytest.mark.parametrize(
    "answer", ["18ab", "18fold", "18\u03b1", "18sin\u03b8", "18!!", "18/", "18 \u274c", "18\u2030"]
)
def test_signs_behind_it_that_make_it_another_number(answer: str) -> None:
    assert is_right(f"#### {answer}", "18") is False


@pytest.mark.parametrize(
    "unit",
    [
        "people",
        "students",
        "years old",
        "square feet",
        "degrees Celsius",
        "m/s",
        "kWh",
        "lbs.",
        "children",
        "boxes",
        "\u500b",
    ],
)
def test_what_is_counted_and_measured_is_read_over(unit: str) -> None:
    assert is_right(f"#### 18 {unit}", "18") is True


# Hostile input


@given(text=st.text())
@example(text="\ud800####\ud800")
@example(text="#### \N{ARABIC-INDIC DIGIT THREE}")
def test_reading_never_raises(text: str) -> None:
    for answer in (text, "#### " + text):
        number = final_number(answer)
        assert number is None or number.is_finite()


@given(st.text(alphabet="#0123456789.,+-eE$%*{}\\ \nbox()[]", max_size=60))
def test_numbers_nearly_written_right_do_no_harm(text: str) -> None:
    number = final_number("####" + text)
    assert number is None or number.is_finite()


@pytest.mark.parametrize("answer", [None, 18, b"#### 18", ["#### 18"], {"content": "#### 18"}])
def test_an_answer_that_is_no_text_has_no_number(answer: Any) -> None:
    assert final_number(answer) is None


@given(number=st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**18), max_value=10**18))
def test_every_number_is_read_back_plain_separated_or_in_scientific_notation(number: Decimal) -> None:
    for text in (f"{number:f}", f"{number:,f}", f"{number:e}", f"{number:+E}", f"**${number:,f}**."):
        assert final_number(f"#### {text}") == number


@pytest.mark.parametrize(
    "unit",
    [
        "####",
        "9",
        "a=",
        "USD",
        "1/",
        "½",
        "\\frac{1}{",
        "<",
        "m^2",
        " and a",
        "'000",
        " k",
        "$",
        "\\boxed{",
        "1,234,",
        ",123",
        " ",
        "\n",
        "**a ",
        "a",
        "#### 1 ",
        "1.",
        "1e",
        "\\)",
        "1+",
        "1,234",
        "=",
        "2 + 16 = ",
    ],
)
def test_a_huge_answer_takes_linear_time(unit: str) -> None:
    # With backtracking these would take hours; the time limit of the test run is what fails then.
    assert final_number("#### 1" + unit * 40_000 + "!") != 18
    assert final_number("####" + unit * 40_000 + "!") != 18
    assert final_number("#### 1" + unit * 20_000 + "= 18 or 19") != 18
