"""Rewards so large that they fill a line, or that their squares are no numbers: shown short, or refused."""

import math

import pytest
from support.evaluations import evaluation

from osmosis_ai.rollout.run.evaluate.documents import markdown_report
from osmosis_ai.rollout.run.evaluate.eval_fn import EvalFnError, EvalFnWrapper
from osmosis_ai.rollout.run.evaluate.model_lines import model_lines
from osmosis_ai.rollout.run.evaluate.notes import pass_notes
from osmosis_ai.rollout.run.formats import format_number
from osmosis_ai.rollout.run.moments import Moments


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.5, "0.50"),
        (-12345.678, "-12345.68"),
        (1e300, "1e+300"),
        (-1.23456789e300, "-1.23457e+300"),
        (math.inf, "inf"),
    ],
)
def test_a_number_is_never_longer_than_a_cell(value: float, shown: str) -> None:
    assert format_number(value) == shown


def test_the_sign_of_a_difference_is_shown_whatever_its_size() -> None:
    assert [format_number(value, 3, "+") for value in (0.5, 1e300)] == ["+0.500", "+1e+300"]


@pytest.mark.parametrize("size", [1.0, 1e-200, 1e160, 8e307])
def test_mean_and_spread_are_right_at_any_size(size: float) -> None:
    moments = Moments()
    for value in (size, -size, size, -size):
        moments.add(value)
    assert moments.mean / size == pytest.approx(0.0, abs=1e-9)
    if size > 1e-100:  # the square of what is smaller is 0
        assert moments.std == pytest.approx(size)


def test_of_the_largest_numbers_there_is_a_mean_and_a_spread() -> None:
    moments = Moments()
    for value in (1.7e308, -1.7e308, 1.7e308):
        moments.add(value)
    assert moments.mean == pytest.approx(1.7e308 / 3)
    assert math.isfinite(moments.std)


@pytest.mark.parametrize("score", [1e101, -1e300])
def test_a_score_that_nothing_can_be_reckoned_of_is_refused(score: float) -> None:
    with pytest.raises(EvalFnError, match=r"fn must return a score of at most 1e\+100, got .*: scale it\."):
        EvalFnWrapper(lambda solution_str: 0.0, "fn").checked(score)


def test_large_scores_are_short_in_tables() -> None:
    result = evaluation([1e90, 2e90], [3e90, -4e90])
    text = markdown_report(result, {"model": "the/model"}, {})
    assert max(len(word) for word in text.split()) < 40
    assert "5e+89" in text


class TestPassNotes:
    def told(self, *scores: list[float], baseline: list[list[float]] | None = None) -> list[str]:
        result = evaluation(*scores, baseline=baseline)
        notes = list(pass_notes(model_lines(result, "m"), result))
        assert markdown_report(result, {"model": "m"}, {}).count("No run passes") == len(notes)
        return notes

    def test_a_best_score_that_is_no_pass_is_told(self) -> None:
        assert self.told([0.5, 0.8], [0.25, 0.0]) == [
            "No run passes fn: a pass is a score of 1 or more (--pass-threshold), and the best is 0.800."
        ]

    @pytest.mark.parametrize(
        "scores", [[[0.7 + 0.2 + 0.1, 0.0]], [[0.0, 0.0]], [[0.5]]], ids=["one passes", "all are 0", "no pass@k"]
    )
    def test_where_it_explains_nothing_it_is_not_told(self, scores: list[list[float]]) -> None:
        assert self.told(*scores) == []

    def test_of_two_models_it_says_which(self) -> None:
        [note] = self.told([1.0, 0.0], baseline=[[0.5, 0.5]])
        assert note.startswith("No run passes fn with same/model (baseline): ")
