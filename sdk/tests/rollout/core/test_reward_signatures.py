"""What signature a reward decorator asks of the function it decorates."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, ForwardRef, Optional

import pytest

from osmosis_ai import osmosis_reward, osmosis_rubric
from osmosis_ai.rollout.core.reward_functions import _is_str_annotation


class Text(str):
    """A subclass of `str`."""


def with_annotations(solution: Any, truth: Any, extra: Any) -> Callable[..., Any]:
    """A classic function with exactly these annotations; `Parameter.empty` stands for none."""

    def function(solution_str: Any, ground_truth: Any, extra_info: Any = None) -> float:
        return 1.0

    function.__annotations__ = {
        name: annotation
        for name, annotation in {"solution_str": solution, "ground_truth": truth, "extra_info": extra}.items()
        if annotation is not inspect.Parameter.empty
    }
    return function


class TestRewardSignature:
    @pytest.mark.parametrize(
        "extra",
        [dict, dict[str, Any], dict | None, dict[str, Any] | None, Optional[dict], "dict", "dict[str, Any] | None"],  # noqa: UP045 - the old spelling is under test
        ids=str,
    )
    def test_extra_info_may_be_any_dict(self, extra: Any) -> None:
        assert osmosis_reward(with_annotations("str", "str", extra))("a", "b") == 1.0

    @pytest.mark.parametrize(
        "extra", [inspect.Parameter.empty, list, str, Any, None, dict | str | None, dict | list[str]], ids=str
    )
    def test_extra_info_of_another_type_is_refused(self, extra: Any) -> None:
        with pytest.raises(
            TypeError, match=r"Third parameter 'extra_info' must be annotated as dict or dict \| None, got 'extra_info"
        ):
            osmosis_reward(with_annotations(str, str, extra))

    def test_annotated_types_count_as_what_they_annotate(self) -> None:
        function = with_annotations(
            Annotated[str, "the answer"], Annotated[str, "the truth"], Annotated[dict[str, Any] | None, "more"]
        )
        assert osmosis_reward(function)("a", "b") == 1.0

    @pytest.mark.parametrize("solution", [inspect.Parameter.empty, int, bytes, str | None, "int", "Nowhere"], ids=str)
    def test_the_first_parameter_is_a_str(self, solution: Any) -> None:
        with pytest.raises(TypeError, match="First parameter 'solution_str' must be annotated as str"):
            osmosis_reward(with_annotations(solution, str, dict))

    @pytest.mark.parametrize("truth", [inspect.Parameter.empty, int, str | None], ids=str)
    def test_the_ground_truth_is_a_str_and_not_optional(self, truth: Any) -> None:
        with pytest.raises(TypeError, match="Second parameter 'ground_truth' must be annotated as str"):
            osmosis_reward(with_annotations(str, truth, dict))

    def test_extra_info_needs_a_default(self) -> None:
        def score(solution_str: str, ground_truth: str, extra_info: dict[str, Any]) -> float:
            return 1.0

        with pytest.raises(TypeError, match="Third parameter 'extra_info' must have a default value of None"):
            osmosis_reward(score)

    def test_extra_info_may_have_another_default(self) -> None:
        @osmosis_reward
        def score(solution_str: str, ground_truth: str, extra_info: dict[str, Any] = {}) -> float:  # noqa: B006 - existing code does so
            return float(len(extra_info))

        assert score("a", "b") == 0.0

    def test_the_first_failing_check_decides(self) -> None:
        def score(solution_str: int, answer: int, more: int) -> float:
            return 1.0

        with pytest.raises(TypeError, match="First parameter 'solution_str' must be annotated as str"):
            osmosis_reward(score)

    def test_arguments_are_not_checked(self) -> None:
        assert osmosis_reward(with_annotations(str, str, dict))(1, None) == 1.0


class TestRubricSignature:
    @pytest.mark.parametrize("text", [str, Text, "str", "builtins.str", "Text"])
    def test_str_may_be_spelled_in_many_ways(self, text: Any) -> None:
        assert osmosis_rubric(with_annotations(text, text, inspect.Parameter.empty))("a", "b") == 1.0

    @pytest.mark.parametrize("truth", [str | None, Optional[str], Optional[Text], "str | None"], ids=str)  # noqa: UP045 - the old spelling is under test
    def test_the_ground_truth_may_be_optional(self, truth: Any) -> None:
        assert osmosis_rubric(with_annotations(str, truth, dict))("a", "b") == 1.0

    @pytest.mark.parametrize("truth", [inspect.Parameter.empty, int, str | int, str | int | None, None], ids=str)
    def test_a_ground_truth_of_another_type_is_refused(self, truth: Any) -> None:
        with pytest.raises(
            TypeError, match=r"Second parameter 'ground_truth' must be annotated as str or Optional\[str\]"
        ):
            osmosis_rubric(with_annotations(str, truth, dict))

    @pytest.mark.parametrize("solution", [inspect.Parameter.empty, int, str | None, Annotated[str, "x"]], ids=str)
    def test_the_first_parameter_is_a_str(self, solution: Any) -> None:
        with pytest.raises(TypeError, match="First parameter 'solution_str' must be annotated as str"):
            osmosis_rubric(with_annotations(solution, str, dict))

    def test_the_first_parameter_has_no_default(self) -> None:
        def score(solution_str: str = "", ground_truth: str = "", extra_info: Any = None) -> float:
            return 1.0

        with pytest.raises(TypeError, match="First parameter 'solution_str' cannot have a default value"):
            osmosis_rubric(score)

    def test_the_second_parameter_has_no_default(self) -> None:
        def score(solution_str: str, ground_truth: str = "", extra_info: Any = None) -> float:
            return 1.0

        with pytest.raises(TypeError, match="Second parameter 'ground_truth' cannot have a default value"):
            osmosis_rubric(score)


@pytest.mark.parametrize(
    "annotation", [str, Text, "str", "builtins.str", ForwardRef("str"), ForwardRef("builtins.str")]
)
def test_str_annotations(annotation: Any) -> None:
    assert _is_str_annotation(annotation) is True


@pytest.mark.parametrize(
    "annotation",
    [
        inspect.Parameter.empty,
        int,
        list[str],
        "int",
        "str | None",
        type(None),
        None,
        str | None,
        Any,
        Annotated[str, "x"],
        ForwardRef("int"),
        5,
    ],
    ids=str,
)
def test_other_annotations(annotation: Any) -> None:
    assert _is_str_annotation(annotation) is False
