"""An agent without a framework, on an ``openai.AsyncOpenAI``, served as it is."""

import json
from typing import Any

from openai import AsyncOpenAI

from examples.frameworks.arithmetic import FUNCTIONS, reward_of
from osmosis_ai.rollout import (
    OpenAIFunctionToolSchema,
    RolloutAgentLoop,
    RolloutContext,
    RolloutRequest,
    RolloutResult,
    tools_of,
)

TOOLS = tools_of(FUNCTIONS)
BY_NAME = {function.__name__: function for function in FUNCTIONS}


async def solve(client: AsyncOpenAI, messages: list[Any], max_turns: int) -> str:
    """The agent as it is in production: a loop around a client."""
    tools: list[Any] = [tool.model_dump(exclude_none=True) for tool in TOOLS]
    for _ in range(max_turns):
        completion = await client.chat.completions.create(model="gpt-5", temperature=0, messages=messages, tools=tools)
        reply = completion.choices[0].message
        if not reply.tool_calls:
            return "stop"
        messages = [*messages, reply]
        for call in reply.tool_calls:
            if call.type == "function":
                result = BY_NAME[call.function.name](**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})
    return "max_turns"


class OpenAILoop(RolloutAgentLoop):
    """Gives the agent the rollout's client."""

    name = "calculator-openai"

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return TOOLS

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        request = ctx.request
        finish_reason = await solve(ctx.openai_client(), request.messages, request.max_turns)
        messages = ctx.messages
        return ctx.complete(messages, finish_reason, reward=reward_of(messages, request.metadata))


agent_loop = OpenAILoop()
