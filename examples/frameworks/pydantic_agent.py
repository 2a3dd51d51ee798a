"""An agent of pydantic-ai, served as it is."""

from pydantic_ai import Agent, UsageLimitExceeded, UsageLimits
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from examples.frameworks.arithmetic import FUNCTIONS, reward_of
from osmosis_ai.rollout import (
    OpenAIFunctionToolSchema,
    RolloutAgentLoop,
    RolloutContext,
    RolloutRequest,
    RolloutResult,
    get_message_content,
    tools_of,
)

AGENT = Agent(tools=FUNCTIONS)


class PydanticAgentLoop(RolloutAgentLoop):
    """Lets the framework run its agent on the rollout's client."""

    name = "calculator-pydantic-ai"

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return tools_of(AGENT)

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        request, finish_reason = ctx.request, "stop"
        system, user = map(get_message_content, request.messages)
        model = OpenAIChatModel("policy", provider=OpenAIProvider(openai_client=ctx.openai_client()))
        limits = UsageLimits(request_limit=request.max_turns)
        try:
            await AGENT.run(user, instructions=system, model=model, usage_limits=limits)
        except UsageLimitExceeded:
            finish_reason = "max_turns"
        messages = ctx.messages
        return ctx.complete(messages, finish_reason, reward=reward_of(messages, request.metadata))


agent_loop = PydanticAgentLoop()
