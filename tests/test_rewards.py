"""The reward is 1.0 for the right number after the last `####`, else 0.0, and None without a ground truth.

What counts as a number is the SDK's affair, and tested there: `final_number`.
"""

import inspect
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from rewards import compute_reward


@pytest.mark.parametrize(
    ("answer", "ground_truth", "reward"),
    [
        ("It is 3 * 6.\n#### 18\n\nI hope that helps!", "18", 1.0),
        ("#### **$1,234.50** a day", "1234.5", 1.0),
        ("#### 18", "19", 0.0),
        ("The answer is 18.", "18", 0.0),
        ("18", "18", 0.0),
        ("", "18", 0.0),
        ("#### 18 or 19", "18", 0.0),
        ("#### 17\nNo:\n#### 18", "18", 1.0),
        ("#### 18\nNo:\n#### 17", "18", 0.0),
        ("#### 7", "Seven, that is.\n#### 7", 1.0),
        ("#### 1234", "1,234", 1.0),
        ("#### 0.3333333", "0.33333333333", 1.0),
        ("#### 0.333333", "0.33333333333", 0.0),
        ("#### 1000000.09", "1000000", 1.0),
        ("#### 1000000.11", "1000000", 0.0),
        ("#### 1e99999999999999999999", "1e99999999999999999999", 0.0),
    ],
)
def test_the_number_after_the_last_mark_counts(answer: str, ground_truth: str, reward: float) -> None:
    assert compute_reward(answer, ground_truth) == reward


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
        assert compute_reward(text, ground_truth) in ((None,) if ground_truth in (None, "") else (0.0, 1.0))


@pytest.mark.parametrize("answer", [None, 18, b"#### 18", ["#### 18"], {"content": "#### 18"}])
def test_an_answer_that_is_no_text_is_wrong(answer: Any) -> None:
    assert compute_reward(answer, "18") == 0.0
