"""A LangGraph agent, served as it is: it speaks HTTP, as a program in another language would."""

from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.errors import GraphRecursionError
from pydantic import SecretStr

from examples.frameworks.arithmetic import FUNCTIONS, reward_of
from osmosis_ai.rollout import (
    OpenAIFunctionToolSchema,
    RolloutAgentLoop,
    RolloutContext,
    RolloutRequest,
    RolloutResult,
    tools_of,
)

TOOLS = [tool(function) for function in FUNCTIONS]


class LangGraphLoop(RolloutAgentLoop):
    """Lets the framework run its agent on the rollout's address."""

    name = "calculator-langgraph"

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return tools_of(TOOLS)

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        request, finish_reason = ctx.request, "stop"
        key = SecretStr(ctx.openai_api_key())
        graph = create_agent(ChatOpenAI(model="policy", base_url=ctx.openai_base_url(), api_key=key), TOOLS)
        steps = 2 * request.max_turns - 1  # the model and its tools are a step each
        try:
            await graph.ainvoke({"messages": list[Any](request.messages)}, {"recursion_limit": steps})
        except GraphRecursionError:
            finish_reason = "max_turns"
        messages = ctx.messages
        return ctx.complete(messages, finish_reason, reward=reward_of(messages, request.metadata))


agent_loop = LangGraphLoop()
