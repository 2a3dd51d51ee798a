"""The agent: it asks a database of its own until the model answers."""

from contextlib import closing

from examples.sql.rewards import trajectory_reward
from examples.sql.tools import TOOLS, Database
from osmosis_ai.rollout import (
    OpenAIFunctionToolSchema,
    RolloutAgentLoop,
    RolloutContext,
    RolloutRequest,
    RolloutResult,
)


class SqlAgentLoop(RolloutAgentLoop):
    """Opens a copy of the database for each rollout; it is closed when the rollout ends, however it ends."""

    name = "sql"

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return TOOLS.schemas

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        database = await ctx.enter(closing(Database()))
        messages = list(ctx.request.messages)
        finish_reason = "max_turns"
        for _ in range(ctx.request.max_turns):
            reply = await ctx.chat(messages, **ctx.request.completion_params)
            messages.append(reply.message)
            if not reply.tool_calls:
                finish_reason = reply.finish_reason
                break
            messages += await TOOLS.answer(ctx, reply.tool_calls, database)
        reward = trajectory_reward(messages, ctx.request.metadata)
        return ctx.complete(messages, finish_reason=finish_reason, reward=reward)


agent_loop = SqlAgentLoop()
