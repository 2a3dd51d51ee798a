"""The protocol of a policy."""

import inspect
from typing import Any

from osmosis_ai.rollout import CompletionsResult, LLMClientProtocol, OsmosisLLMClient, RolloutMetrics


class Scripted:
    async def chat_completions(self, messages: list[dict[str, Any]], **kwargs: Any) -> CompletionsResult:
        return CompletionsResult({"role": "assistant"}, [], [], {}, "stop")

    def get_metrics(self) -> RolloutMetrics:
        return RolloutMetrics()


class WithoutMetrics:
    async def chat_completions(self, messages: list[dict[str, Any]], **kwargs: Any) -> CompletionsResult:
        raise NotImplementedError


def as_policy(policy: LLMClientProtocol) -> LLMClientProtocol:
    """Checked by the type checker, which sees signatures."""
    return policy


def test_a_class_with_both_members_is_a_policy() -> None:
    assert isinstance(as_policy(Scripted()), LLMClientProtocol)
    assert isinstance(as_policy(OsmosisLLMClient("http://trainer", "r")), LLMClientProtocol)


def test_a_class_that_lacks_one_is_not() -> None:
    assert not isinstance(WithoutMetrics(), LLMClientProtocol)
    assert not isinstance(object(), LLMClientProtocol)


def test_completing_a_rollout_is_no_part_of_it() -> None:
    members = {name for name in vars(LLMClientProtocol) if not name.startswith("_")}
    assert members == {"chat_completions", "get_metrics"}
    assert inspect.iscoroutinefunction(LLMClientProtocol.chat_completions)
    assert not inspect.iscoroutinefunction(LLMClientProtocol.get_metrics)
