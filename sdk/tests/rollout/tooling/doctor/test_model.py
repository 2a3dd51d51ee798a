"""The key of the model that ``osmosis test`` would use."""

import os

import pytest
from support.doctor import assert_names, find

from osmosis_ai.rollout.tooling.doctor.types import Status


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if "API_KEY" in name:
            monkeypatch.delenv(name)


def test_the_default_model_has_no_key() -> None:
    assert_names(find("model-key"), Status.WARNING, "openai", "OPENAI_API_KEY", "builtin/arithmetic")


@pytest.mark.parametrize(
    ("model", "word"),
    [("anthropic/some-model", "ANTHROPIC_API_KEY"), ("/x", "openai/gpt-4o"), ("builtin/none", "builtin/arithmetic")],
)
def test_a_model_that_is_asked_for_cannot_be_used(model: str, word: str) -> None:
    assert_names(find("model-key", model=model), Status.PROBLEM, word)


def test_a_key_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-shown-anywhere")
    finding = find("model-key")
    assert finding.status is Status.OK
    assert "never-shown" not in str(finding)


def test_a_script_needs_none() -> None:
    assert find("model-key", model="builtin/arithmetic").status is Status.OK
