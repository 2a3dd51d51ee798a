"""Hosted rubric evaluation is out of scope: its names import, and using it says so in one sentence."""

import pytest

import osmosis_ai
from osmosis_ai import rubric_eval, rubric_types


def test_calling_it_says_that_it_is_not_available() -> None:
    with pytest.raises(RuntimeError, match=r"^evaluate_rubric is not available: .* @osmosis_rubric\.$"):
        rubric_eval.evaluate_rubric("be kind", "an answer", model="any")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (rubric_eval, "evaluate_rubric"),
        (rubric_eval, "MissingAPIKeyError"),
        (rubric_types, "ModelNotFoundError"),
        (rubric_types, "ProviderRequestError"),
    ],
)
def test_the_old_names_are_the_same_object_at_the_top_level(module: object, name: str) -> None:
    assert getattr(osmosis_ai, name) is getattr(module, name)


@pytest.mark.parametrize(
    "error",
    [rubric_eval.MissingAPIKeyError, rubric_types.ModelNotFoundError, rubric_types.ProviderRequestError],
)
def test_the_errors_can_be_raised_with_a_message(error: type[Exception]) -> None:
    assert str(error("no key")) == "no key"
