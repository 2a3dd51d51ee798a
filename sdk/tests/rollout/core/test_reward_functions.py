"""The reward decorators, `osmosis_reward` and `osmosis_rubric`."""

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Annotated, Any

import pytest

from osmosis_ai import osmosis_reward, osmosis_rubric

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

both = pytest.mark.parametrize("decorate", [osmosis_reward, osmosis_rubric], ids=["reward", "rubric"])


class Text(str):
    """A subclass of `str`."""


def returns(score: Any) -> Callable[..., Any]:
    """A classic function with that score, of a signature both decorators accept."""

    def function(solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> Any:
        return score

    return function


class TestBothDecorators:
    @both
    def test_keep_name_doc_and_signature(self, decorate: Decorator) -> None:
        def score(solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> float:
            """Scores."""
            return 1.0

        decorated = decorate(score)
        assert (decorated.__name__, decorated.__doc__) == ("score", "Scores.")
        assert inspect.unwrap(decorated) is score
        assert inspect.signature(decorated) == inspect.signature(score)

    @both
    def test_none_is_a_result_where_the_signature_says_so(self, decorate: Decorator) -> None:
        def score(
            solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None
        ) -> "Annotated[float | None, 'a reward']":
            return float(solution_str) if solution_str else None

        decorated = decorate(score)
        assert decorated("", "b", None) is None
        assert decorated("0.5", "b", None) == 0.5

    @both
    @pytest.mark.parametrize("value", [1, True, None, "1.0", Decimal(1), [1.0]])
    def test_a_result_that_is_no_float_is_refused(self, decorate: Decorator, value: object) -> None:
        expected = f"^Function function must return a float, got {type(value).__name__}$"
        with pytest.raises(TypeError, match=expected):
            decorate(returns(value))("a", "b", None)

    @both
    def test_a_float_subclass_is_passed_on(self, decorate: Decorator) -> None:
        class Score(float):
            pass

        score = Score(0.5)
        assert decorate(returns(score))("a", "b", None) is score

    @both
    @pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
    def test_a_score_that_is_not_finite_is_passed_on_with_a_warning(
        self, decorate: Decorator, score: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, logger="osmosis_ai.rollout.core.reward_functions"):
            assert decorate(returns(score))("a", "b", None) is score
        assert f"Function function returned {score}" in caplog.text

    @both
    def test_a_finite_score_is_not_worth_a_warning(self, decorate: Decorator, caplog: pytest.LogCaptureFixture) -> None:
        decorate(returns(0.0))("a", "b", None)
        assert caplog.records == []

    @both
    def test_data_source_is_dropped_when_the_function_cannot_take_it(self, decorate: Decorator) -> None:
        assert decorate(returns(1.0))("a", "b", None, data_source="gsm8k") == 1.0

    @both
    def test_data_source_reaches_a_parameter_of_that_name(self, decorate: Decorator) -> None:
        @decorate
        def score(
            solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, data_source: str = ""
        ) -> float:
            return float(data_source)

        assert score("a", "b", None, data_source="0.25") == 0.25

    @both
    def test_data_source_reaches_keyword_arguments(self, decorate: Decorator) -> None:
        @decorate
        def score(
            solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **kwargs: str
        ) -> float:
            return float(kwargs["data_source"])

        assert score("a", "b", None, data_source="0.25") == 0.25

    @both
    def test_a_function_of_another_shape_is_only_wrapped(self, decorate: Decorator) -> None:
        @decorate
        def score(prompt: int) -> Any:
            return ["anything", prompt]

        assert score(3, data_source="dropped here too") == ["anything", 3]

    @both
    def test_a_function_without_parameters_is_only_wrapped(self, decorate: Decorator) -> None:
        assert decorate(lambda: "no float")() == "no float"

    @both
    def test_a_method_is_only_wrapped(self, decorate: Decorator) -> None:
        class Scorer:
            @decorate
            def score(self, solution_str: str) -> int:
                return len(solution_str)

        assert Scorer().score("abc") == 3

    @both
    def test_two_parameters_are_too_few(self, decorate: Decorator) -> None:
        def score(solution_str: str, ground_truth: str) -> float:
            return 1.0

        with pytest.raises(TypeError, match="Function score must have at least 3 parameters, got 2"):
            decorate(score)

    @both
    def test_keyword_arguments_count_as_the_third_parameter_and_have_the_wrong_name(self, decorate: Decorator) -> None:
        def score(solution_str: str, ground_truth: str, **kwargs: Any) -> float:
            return 1.0

        with pytest.raises(TypeError, match="Third parameter must be named 'extra_info'"):
            decorate(score)

    @both
    def test_the_second_parameter_has_a_fixed_name(self, decorate: Decorator) -> None:
        def score(solution_str: str, answer: str, extra_info: dict[str, Any] | None = None) -> float:
            return 1.0

        with pytest.raises(TypeError, match="Second parameter must be named 'ground_truth', got 'answer: str'"):
            decorate(score)

    @both
    def test_extra_info_may_be_keyword_only(self, decorate: Decorator) -> None:
        @decorate
        def score(solution_str: str, ground_truth: str, *, extra_info: dict[str, Any] | None = None) -> float:
            return float(extra_info is None)

        assert score("a", "b") == 1.0

    @both
    def test_postponed_annotations_are_resolved(self, decorate: Decorator) -> None:
        def score(solution_str: "str", ground_truth: "str", extra_info: "dict[str, Any] | None" = None) -> "float":
            return 1.0

        assert decorate(score)("a", "b", None) == 1.0

    @both
    def test_one_annotation_that_cannot_be_resolved_does_not_spoil_the_others(self, decorate: Decorator) -> None:
        def score(solution_str: Any, ground_truth: Any, extra_info: Any = None, other: Any = None) -> float:
            return 1.0

        score.__annotations__ = {
            "solution_str": "Text.__base__",
            "ground_truth": "Text.__base__",
            "extra_info": "dict[str, Any] | None",
            "other": "KnownToTheTypeCheckerOnly",
        }
        assert decorate(score)("a", "b", None) == 1.0

    @both
    def test_something_that_cannot_be_called_is_refused(self, decorate: Any) -> None:
        with pytest.raises(TypeError, match="needs a function, got int"):
            decorate(5)


class TestAwaitables:
    @both
    async def test_a_coroutine_function_stays_one(self, decorate: Decorator) -> None:
        @decorate
        async def score(solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> float:
            return 0.5

        assert inspect.iscoroutinefunction(score)
        assert await score("a", "b", None, data_source="dropped") == 0.5

    @both
    async def test_its_result_is_checked_when_awaited(self, decorate: Decorator) -> None:
        @decorate
        async def score(solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> int:
            return 1

        pending = score("a", "b", None)
        with pytest.raises(TypeError, match="Function score must return a float, got int"):
            await pending

    async def test_its_arguments_are_checked_when_awaited(self) -> None:
        @osmosis_rubric
        async def score(solution_str: str, ground_truth: str, extra_info: Any) -> float:
            return 1.0

        pending = score(1, "b", None)  # type: ignore[arg-type] # the mistake under test
        with pytest.raises(TypeError, match="'solution_str' must be a string, got int"):
            await pending

    @both
    async def test_an_instance_with_an_async_call_is_awaited(self, decorate: Decorator) -> None:
        class Scorer:
            async def __call__(
                self, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None
            ) -> Any:
                return solution_str

        decorated = decorate(Scorer())
        assert inspect.iscoroutinefunction(decorated)
        with pytest.raises(TypeError, match="Function Scorer must return a float, got str"):
            await decorated("a", "b", None)

    @both
    async def test_a_coroutine_from_a_plain_function_is_checked_when_awaited(self, decorate: Decorator) -> None:
        async def later(value: Any) -> Any:
            return value

        @decorate
        def score(solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> Awaitable[Any]:
            return later(float(solution_str) if ground_truth else None)

        assert await score("0.5", "b", None) == 0.5
        with pytest.raises(TypeError, match="Function score must return a float, got NoneType"):
            await score("0.5", "", None)

    @both
    async def test_a_partial_of_a_coroutine_function_is_awaited(self, decorate: Decorator) -> None:
        async def score(
            solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, weight: float = 1.0
        ) -> float:
            return weight

        assert await decorate(functools.partial(score, weight=0.5))("a", "b", None) == 0.5


class TestCallablesWithoutAName:
    @both
    def test_a_partial_goes_by_the_name_of_its_function(self, decorate: Decorator) -> None:
        def score(
            solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, value: Any = None
        ) -> Any:
            return value

        decorated = decorate(functools.partial(score, value=3))
        assert decorated.__name__ == "score"
        with pytest.raises(TypeError, match="Function score must return a float, got int"):
            decorated("a", "b", None)

    @both
    def test_an_instance_goes_by_the_name_of_its_class(self, decorate: Decorator) -> None:
        class Scorer:
            def __call__(self, solution_str: str, ground_truth: int, extra_info: None = None) -> float:
                return 1.0

        with pytest.raises(
            TypeError, match=r"Function Scorer: Second parameter 'ground_truth' must be annotated as str"
        ):
            decorate(Scorer())

    @both
    def test_the_postponed_annotations_of_an_instance_are_resolved(self, decorate: Decorator) -> None:
        class Scorer:
            def __call__(
                self, solution_str: "str", ground_truth: "str", extra_info: "dict[str, Any] | None" = None
            ) -> float:
                return 1.0

        assert decorate(Scorer())("a", "b", None) == 1.0


class TestRubricArguments:
    @staticmethod
    def score(*args: Any, **kwargs: Any) -> Any:
        @osmosis_rubric
        def rubric(solution_str: str, ground_truth: str, extra_info: Any) -> float:
            return 1.0

        return rubric(*args, **kwargs)

    def test_by_position_or_by_name(self) -> None:
        assert self.score("a", "b", None) == self.score(solution_str="a", ground_truth=None, extra_info=3) == 1.0

    @pytest.mark.parametrize(
        ("args", "kwargs", "message"),
        [
            ((), {}, "^'solution_str' argument is required$"),
            (("a",), {}, "^'ground_truth' argument is required$"),
            (("a", "b"), {}, "^'extra_info' argument is required$"),
            ((1, "b", None), {}, "^'solution_str' must be a string, got int$"),
            ((None, "b", None), {}, "^'solution_str' must be a string, got NoneType$"),
            (("a", 2, None), {}, "^'ground_truth' must be a string or None, got int$"),
            (("a", "b", None, 4), {}, "too many positional arguments"),
            (("a", "b", None), {"unheard_of": 1}, "unheard_of"),
        ],
    )
    def test_a_wrong_call_says_what_is_wrong(self, args: tuple[Any, ...], kwargs: dict[str, Any], message: str) -> None:
        with pytest.raises(TypeError, match=message):
            self.score(*args, **kwargs)

    def test_a_default_stands_in_for_extra_info(self) -> None:
        assert osmosis_rubric(returns(1.0))("a", "b") == 1.0
