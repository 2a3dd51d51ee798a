"""The number after the last `####`, however a model dresses it; and how near it is to the right one."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from osmosis_ai.rollout import final_number, is_close, read_number

# What models write


@pytest.mark.parametrize(
    "answer",
    [
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
    ],
)
def test_the_right_number_counts_however_it_is_dressed(answer: str) -> None:
    assert final_number(answer) == 18


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("#### 1,234", "1234"),
        ("#### 1,234,567.89", "1234567.89"),
        ("#### $1,234.50", "1234.5"),
        ("#### 1{,}234", "1234"),
        ("#### -7", "-7"),
        ("#### \N{MINUS SIGN}7", "-7"),
        ("#### - 7", "-7"),
        ("#### -$7", "-7"),
        ("#### $-7$", "-7"),
        ("#### .5", "0.5"),
        ("#### -.5", "-0.5"),
        ("#### -0", "0"),
        ("#### 0.0000123", "0.0000123"),
        ("#### 111111111011111111100", "111111111011111111100"),
    ],
)
def test_signs_separators_and_fractions_are_read(answer: str, number: str) -> None:
    assert final_number(answer) == Decimal(number)


@pytest.mark.parametrize(
    "answer",
    [
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
        "#### x = 18",
        "#### 18/1",
        "#### 18 19",
        "#### 18 or 19",
        "#### 1,8",
        "#### 1.8.0",
        "#### 18^1",
        "#### 18 * 1",
        "#### 18 x 10^0",
        "#### \\frac{18}{1}",
        "#### 18:00",
        "### 18",
        "#### 18 ####",
        "#### 18\n#### wait",
    ],
)
def test_anything_but_one_number_after_the_last_mark_is_none(answer: str) -> None:
    assert final_number(answer) is None


@pytest.mark.parametrize("text", ["1234,567", "1,2345", "12,34,567", "1,,234", ",234", "1,234,56"])
def test_misplaced_separators_make_no_number(text: str) -> None:
    assert final_number(f"#### {text}") is None


def test_the_last_mark_decides() -> None:
    assert final_number("#### 17\nNo:\n#### 18") == 18
    assert final_number("#### 18\nNo:\n#### 17") == 17


def test_every_digit_is_kept() -> None:
    assert final_number(f"#### 0.{'1' * 5000}") == Decimal(f"0.{'1' * 5000}")


# Tolerance


@pytest.mark.parametrize(
    ("answer", "ground_truth", "close"),
    [
        ("0.3333333", "0.33333333333", True),
        ("0.333333", "0.33333333333", False),
        ("0.00000009", "0", True),
        ("0.00000011", "0", False),
        ("1000000.09", "1000000", True),
        ("1000000.11", "1000000", False),
        ("-0.3333333", "0.3333333", False),
        ("1e400", "1e400", True),
        ("1e400", "2e400", False),
        ("1e999999999", "-1e999999999", False),
        ("9e999999999999999999", "-9e999999999999999999", False),
        ("1e-999999999", "0", True),
    ],
)
def test_a_number_may_be_off_by_the_tolerance_absolute_or_relative(answer: str, ground_truth: str, close: bool) -> None:
    number, truth = read_number(answer), read_number(ground_truth)
    assert number is not None
    assert truth is not None
    assert is_close(number, truth, 1e-7) is close


def test_a_number_beyond_any_use_is_none() -> None:
    assert final_number("#### 1e99999999999999999999") is None


# Ground truths


@pytest.mark.parametrize("ground_truth", [18, 18.0, Decimal(18), "18", " 18 ", "$18", "1 x\n#### 18", "#### 18"])
def test_a_ground_truth_may_be_a_number_or_a_text(ground_truth: Any) -> None:
    assert read_number(ground_truth) == 18


@pytest.mark.parametrize(
    "nothing", ["eighteen", float("nan"), float("inf"), Decimal("sNaN"), True, [18], b"18", None, ""]
)
def test_what_is_no_number_is_none(nothing: Any) -> None:
    assert read_number(nothing) is None


def test_a_ground_truth_of_any_length_will_do() -> None:
    assert read_number(10**6000) == final_number(f"#### 1{'0' * 6000}")


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
    "unit", ["####", "9", "$", "\\boxed{", "1,234,", ",123", " ", "\n", "**a ", "a", "#### 1 ", "1.", "1e"]
)
def test_a_huge_answer_takes_linear_time(unit: str) -> None:
    # With backtracking these would take hours; the time limit of the test run is what fails then.
    assert final_number("#### 1" + unit * 200_000 + "!") != 18
    assert final_number("####" + unit * 200_000 + "!") != 18
