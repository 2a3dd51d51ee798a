"""The reward is 1.0 for the right number after the last `####`, else 0.0, and None without a ground truth."""

import inspect
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from rewards import compute_reward, parse_number

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
    assert compute_reward(answer, "18") == 1.0
    assert compute_reward(answer, "19") == 0.0


@pytest.mark.parametrize(
    ("answer", "ground_truth"),
    [
        ("#### 1,234", "1234"),
        ("#### 1,234,567.89", "1234567.89"),
        ("#### $1,234.50", "1234.5"),
        ("#### 1{,}234", "1234"),
        ("#### 1234", "1,234"),
        ("#### -7", "-7"),
        ("#### \N{MINUS SIGN}7", "-7"),
        ("#### - 7", "-7"),
        ("#### -$7", "-7"),
        ("#### $-7$", "-7"),
        ("#### .5", "0.5"),
        ("#### -.5", "-0.5"),
        ("#### -0", "0"),
        ("#### 7", "Seven, that is.\n#### 7"),
        ("#### 0.0000123", "0.0000123"),
        ("#### 111111111011111111100", "111111111011111111100"),
    ],
)
def test_signs_separators_and_fractions_are_read(answer: str, ground_truth: str) -> None:
    assert compute_reward(answer, ground_truth) == 1.0


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
def test_anything_but_one_number_after_the_last_mark_is_wrong(answer: str) -> None:
    assert compute_reward(answer, "18") == 0.0


@pytest.mark.parametrize("text", ["1234,567", "1,2345", "12,34,567", "1,,234", ",234", "1,234,56"])
def test_misplaced_separators_make_no_number(text: str) -> None:
    assert parse_number(f"#### {text}") is None


def test_the_last_mark_decides() -> None:
    assert compute_reward("#### 17\nNo:\n#### 18", "18") == 1.0
    assert compute_reward("#### 18\nNo:\n#### 17", "18") == 0.0


# Tolerance


@pytest.mark.parametrize(
    ("answer", "ground_truth", "reward"),
    [
        ("0.3333333", "0.33333333333", 1.0),
        ("0.333333", "0.33333333333", 0.0),
        ("0.00000009", "0", 1.0),
        ("0.00000011", "0", 0.0),
        ("1000000.09", "1000000", 1.0),
        ("1000000.11", "1000000", 0.0),
        ("-0.3333333", "0.3333333", 0.0),
        ("1e400", "1e400", 1.0),
        ("1e400", "2e400", 0.0),
        ("1e999999999", "-1e999999999", 0.0),
        ("9e999999999999999999", "-9e999999999999999999", 0.0),
        ("1e-999999999", "0", 1.0),
        ("1e99999999999999999999", "1e99999999999999999999", 0.0),
    ],
)
def test_the_answer_may_be_off_by_1e_7_absolute_or_relative(answer: str, ground_truth: str, reward: float) -> None:
    assert compute_reward(f"#### {answer}", ground_truth) == reward


# Ground truths


@pytest.mark.parametrize("nothing", [None, ""])
def test_without_a_ground_truth_there_is_no_reward(nothing: Any) -> None:
    assert compute_reward("#### 18", nothing) is None
    assert compute_reward("no answer", nothing, {"row": 1}) is None
    assert compute_reward(solution_str="#### 18", ground_truth=nothing, extra_info=None) is None


@pytest.mark.parametrize("zero", [0, 0.0, "0", "0.0", "-0"])
def test_a_ground_truth_of_zero_is_one(zero: Any) -> None:
    assert compute_reward("#### 0", zero) == 1.0
    assert compute_reward("#### 1", zero) == 0.0


@pytest.mark.parametrize("ground_truth", [18, 18.0, Decimal(18), "18", " 18 ", "$18"])
def test_a_ground_truth_may_be_a_number_or_a_text(ground_truth: Any) -> None:
    assert compute_reward("#### 18", ground_truth) == 1.0


@pytest.mark.parametrize("ground_truth", ["eighteen", float("nan"), float("inf"), Decimal("sNaN"), True, [18], b"18"])
def test_no_answer_matches_a_ground_truth_that_is_no_number(ground_truth: Any) -> None:
    assert compute_reward("#### 18", ground_truth) == 0.0
    assert compute_reward("#### nan", ground_truth) == 0.0


def test_a_ground_truth_of_any_length_will_do() -> None:
    assert compute_reward(f"#### 1{'0' * 6000}", 10**6000) == 1.0


# As a reward function of the SDK


def test_the_arguments_may_be_named_and_the_data_source_is_dropped() -> None:
    reward = compute_reward(solution_str="#### 18", ground_truth="18", extra_info={"row": 1}, data_source="gsm8k")
    assert reward == 1.0


def test_the_signature_is_the_classic_one() -> None:
    assert list(inspect.signature(compute_reward).parameters) == ["solution_str", "ground_truth", "extra_info"]


# Hostile input


@given(answer=st.text(), ground_truth=st.none() | st.text() | st.integers() | st.floats() | st.booleans())
@example(answer="\ud800####\ud800", ground_truth="\ud800")
@example(answer="#### \N{ARABIC-INDIC DIGIT THREE}", ground_truth="3")
def test_the_reward_is_always_one_of_three(answer: str, ground_truth: Any) -> None:
    for text in (answer, "#### " + answer):
        assert compute_reward(text, ground_truth) in ((None,) if ground_truth in (None, "") else (0.0, 1.0))


@given(st.text(alphabet="#0123456789.,+-eE$%*{}\\ \nbox()[]", max_size=60))
def test_numbers_nearly_written_right_do_no_harm(text: str) -> None:
    assert compute_reward("####" + text, "1") in (0.0, 1.0)


@pytest.mark.parametrize("answer", [None, 18, b"#### 18", ["#### 18"], {"content": "#### 18"}])
def test_an_answer_that_is_no_text_is_wrong(answer: Any) -> None:
    assert compute_reward(answer, "18") == 0.0


@given(number=st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**18), max_value=10**18))
def test_every_number_is_read_back_plain_separated_or_in_scientific_notation(number: Decimal) -> None:
    for text in (f"{number:f}", f"{number:,f}", f"{number:e}", f"{number:+E}", f"**${number:,f}**."):
        assert parse_number(f"#### {text}") == number


@pytest.mark.parametrize(
    "unit", ["####", "9", "$", "\\boxed{", "1,234,", ",123", " ", "\n", "**a ", "a", "#### 1 ", "1.", "1e"]
)
def test_a_huge_answer_takes_linear_time(unit: str) -> None:
    # With backtracking these would take hours; the time limit of the test run is what fails then.
    assert compute_reward("#### 1" + unit * 200_000 + "!", "18") == 0.0
    assert compute_reward("####" + unit * 200_000 + "!", "18") == 0.0
