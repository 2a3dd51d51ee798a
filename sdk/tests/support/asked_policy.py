"""A rollout's policy that gives what it is told to, when it may, and remembers what it was asked."""

import asyncio
from typing import Any

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema, RolloutMetrics, RolloutRequest

Message = dict[str, Any]

QUESTION: Message = {"role": "user", "content": "2 + 2?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}}
CALLING: Message = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [CALL]}
ANSWER: Message = {"role": "tool", "tool_call_id": "c1", "content": "4"}
SAYING: Message = {"role": "assistant", "content": "It is 4"}
TOOL = OpenAIFunctionToolSchema.model_validate({"type": "function", "function": {"name": "add", "description": "Add"}})


class AskedPolicy:
    """Gives its answers in turn, or raises them, once it may."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[list[Message], dict[str, Any]]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = asyncio.Event()

    async def chat_completions(self, messages: list[Message], **kwargs: Any) -> CompletionsResult:
        self.calls.append((list(messages), kwargs))
        self.asked.set()
        await self.may_answer.wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        reason = "tool_calls" if "tool_calls" in answer else "stop"
        return CompletionsResult(answer, [], [], {"prompt_tokens": 9, "completion_tokens": 2}, reason)

    def get_metrics(self) -> RolloutMetrics:
        return RolloutMetrics(num_llm_calls=len(self.calls))


def context(*answers: Any, **fields: Any) -> RolloutContext:
    """Of a rollout whose policy answers so."""
    request = RolloutRequest(
        rollout_id="r1",
        server_url="http://trainer",
        messages=[QUESTION],
        completion_params=fields.pop("params", {"temperature": 0.5}),
    )
    return RolloutContext(request, [TOOL], AskedPolicy(*answers), **fields)


def policy_of(ctx: RolloutContext) -> Any:
    """The one that ``context`` made for it."""
    return ctx.llm
