"""Whether an answer is right: what a ground truth may be, how near a number must be to it, and other answers."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from osmosis_ai.rollout import final_number, is_close, is_comparable, is_right, read_number

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


# Ground truths


@pytest.mark.parametrize("ground_truth", [18, 18.0, Decimal(18), "18", " 18 ", "$18", "1 x\n#### 18", "#### 18"])
def test_a_ground_truth_may_be_a_number_or_a_text(ground_truth: Any) -> None:
    assert read_number(ground_truth) == 18


@pytest.mark.parametrize(
    ("ground_truth", "number"), [("36/2", 18), ("\\frac{36}{2}", 18), ("18 dozen", 216), (0.1, Decimal("0.1"))]
)
def test_a_ground_truth_may_leave_work_undone(ground_truth: Any, number: Any) -> None:
    assert read_number(ground_truth) == number


@pytest.mark.parametrize(
    "nothing", ["eighteen", float("nan"), float("inf"), Decimal("sNaN"), True, [18], b"18", None, ""]
)
def test_what_is_no_number_is_none(nothing: Any) -> None:
    assert read_number(nothing) is None


def test_a_ground_truth_of_any_length_will_do() -> None:
    assert read_number(10**6000) == final_number(f"#### 1{'0' * 6000}")


# Whether an answer is right


@pytest.mark.parametrize(
    ("answer", "ground_truth"),
    [
        ("1/2", "1/2"),
        ("0.5", "1/2"),
        ("\\frac{1}{2}", "0.5"),
        ("2/4", "\\frac{1}{2}"),
        ("0.33333333", "1/3"),
        ("x = 18", "x=18"),
        ("18", "x=18"),
        ("Paris", "Paris"),
        ("**paris**.", "Paris"),
        ("\\boxed{\\text{Paris}}", " Paris "),
        ("Paris\n\nI hope that helps!", "Paris"),
        ("New  York", "new york"),
        ("(1,2)", "(1, 2)"),
        ("\\(\\left(1, 2\\right)\\)", "(1, 2)"),
        ("18 or 19", "18 or 19"),
        ("B", "b"),
        ("\N{LATIN SMALL LETTER E}\N{COMBINING ACUTE ACCENT}t\N{LATIN SMALL LETTER E WITH ACUTE}", "été"),
        ("true", True),
        ("x = 2 + 16 = 18", "x=18"),
        ("2 + 16 = 18", "2 + 16 = 18"),
        ("\\frac34", "3/4"),
        ("0.75", "\\frac34"),
        ("f'", "f'"),
        ("'f'", "f"),
        ("n!", "n!"),
        ("\N{LEFT SINGLE QUOTATION MARK}Paris\N{RIGHT SINGLE QUOTATION MARK}.", "Paris"),
        ("Paris**", "Paris"),
        ("*Paris*", "Paris"),
        ("A*", "A*"),
        ("x**2", "x**2"),
        ("18", 18),
    ],
)
def test_what_means_the_ground_truth_is_right(answer: str, ground_truth: Any) -> None:
    assert is_right(f"It is so.\n#### {answer}", ground_truth) is True


@pytest.mark.parametrize(
    ("answer", "ground_truth"),
    [
        ("0.333333", "1/3"),
        ("2", "1/2"),
        ("1/3", "1/2"),
        ("London", "Paris"),
        ("Paris or London", "Paris"),
        ("(2, 1)", "(1, 2)"),
        ("18", "18 or 19"),
        ("18", "Paris"),
        ("", "Paris"),
        ("false", True),
        ("1", True),
        ("18 thousand", "18"),
        ("18k", 18),
        ("12345679", "12345678"),
        ("y=18", "x=18"),
        ("y = 2 + 16 = 18", "x = 18"),
        ("f'", "f"),
        ("f", "f'"),
        ("f''", "f'"),
        ("f(x)'", "f(x)"),
        ("x!", "x"),
        ("(n+1)!", "(n+1)"),
        ("!x", "x"),
        ("x*", "x"),
        ("A*", "A"),
        ("x**2", "x2"),
        (".5x", "5x"),
        ("2 + 16 = 19", "18"),
        ("\\frac43", "3/4"),
        ("12345678901234567891", 12345678901234567890),
    ],
)
def test_anything_else_is_wrong(answer: str, ground_truth: Any) -> None:
    assert is_right(f"#### {answer}", ground_truth) is False


def test_an_answer_needs_its_mark() -> None:
    assert is_right("Paris", "Paris") is False
    assert is_right("18", "18") is False


@pytest.mark.parametrize(
    "nothing",
    [None, "", " ", "####", "?", "**", "-", "\u2014", "...", "_", float("nan"), float("inf"), [18], {"a": 1}, b"18"],
)
def test_no_answer_is_wrong_where_the_ground_truth_cannot_be_compared(nothing: Any) -> None:
    assert is_right("#### 18", nothing) is None
    assert not is_comparable(nothing)


@given(answer=st.text(), ground_truth=st.text() | st.integers() | st.floats() | st.booleans() | st.none())
@example(answer="\ud800", ground_truth="\ud800")
def test_comparing_never_raises_and_a_truth_is_right_in_its_own_words(answer: str, ground_truth: Any) -> None:
    assert (is_right("#### " + answer, ground_truth) is None) is not is_comparable(ground_truth)
    if is_comparable(ground_truth):
        assert is_right(f"#### {ground_truth}", ground_truth) is True
