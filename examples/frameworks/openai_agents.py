"""An agent of openai-agents, served as it is."""

from typing import Any

from agents import Agent, MaxTurnsExceeded, OpenAIChatCompletionsModel, RunConfig, Runner, function_tool

from examples.frameworks.arithmetic import FUNCTIONS, reward_of
from osmosis_ai.rollout import (
    OpenAIFunctionToolSchema,
    RolloutAgentLoop,
    RolloutContext,
    RolloutRequest,
    RolloutResult,
    tools_of,
)

AGENT = Agent(name="calculator", tools=[function_tool(function) for function in FUNCTIONS])


class OpenAIAgentsLoop(RolloutAgentLoop):
    """Lets the framework run its agent on the rollout's client."""

    name = "calculator-openai-agents"

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return tools_of(AGENT)

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        request, finish_reason = ctx.request, "stop"
        model = OpenAIChatCompletionsModel("policy", openai_client=ctx.openai_client())
        config = RunConfig(model=model, tracing_disabled=True)
        try:
            await Runner.run(AGENT, list[Any](request.messages), max_turns=request.max_turns, run_config=config)
        except MaxTurnsExceeded:
            finish_reason = "max_turns"
        messages = ctx.messages
        return ctx.complete(messages, finish_reason, reward=reward_of(messages, request.metadata))


agent_loop = OpenAIAgentsLoop()
