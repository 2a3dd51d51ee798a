"""Calls of tools as a model writes them, and the context of a rollout to answer them in."""

import asyncio
import json
from decimal import Decimal
from typing import Annotated, Any

from osmosis_ai.rollout import EXACT, RolloutContext, RolloutMetrics, RolloutRequest, Toolbox


class NoPolicy:
    """Stands where no chat call is made."""

    async def chat_completions(self, messages: list[dict[str, Any]], **kwargs: Any) -> Any:
        raise AssertionError("no chat call was expected")

    def get_metrics(self) -> RolloutMetrics:
        return RolloutMetrics()


def a_context() -> RolloutContext:
    request = RolloutRequest(rollout_id="rollout-1", server_url="http://trainer", messages=[], completion_params={})
    return RolloutContext(request=request, tools=[], llm=NoPolicy())


def tool_call(name: Any, arguments: Any, call_id: Any = "call_1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


async def answer_to(tools: Toolbox, call: Any, state: Any = None) -> dict[str, str]:
    """The one message that answers ``call``."""
    [message] = await tools.answer(a_context(), [call], state)
    return message


async def content_of(tools: Toolbox, name: str, arguments: Any, state: Any = None) -> str:
    """The content of the answer; arguments other than text are sent as JSON text."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return (await answer_to(tools, tool_call(name, text), state))["content"]


def add(a: Annotated[Decimal, "First number"], b: Annotated[Decimal, "Second number"]) -> Decimal:
    """Add two numbers: a + b."""
    return EXACT.add(a, b)


def subtract(a: Decimal, b: Decimal) -> Decimal:
    """Subtract."""
    return EXACT.subtract(a, b)


TOOLS = Toolbox(add, subtract)


def run(name: str, arguments: Any, tools: Toolbox = TOOLS, state: Any = None) -> str:
    """As `content_of`, from outside an event loop."""
    return asyncio.run(content_of(tools, name, arguments, state))


def answer(call: Any, tools: Toolbox = TOOLS) -> dict[str, str]:
    """As `answer_to`, from outside an event loop."""
    return asyncio.run(answer_to(tools, call))
