"""The floor's agent on this project's SDK: the same loop and tool. What it does costs what the SDK costs."""

from typing import Any

from bench.contenders.work import ADD_TOOL, Message, converse
from osmosis_ai.rollout import RolloutAgentLoop, RolloutContext, RolloutRequest, RolloutResult
from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema

_TOOLS = [OpenAIFunctionToolSchema.model_validate(ADD_TOOL)]


class MinimalAgentLoop(RolloutAgentLoop):
    """Lets the model call the tool; traces each turn if there is a trace."""

    name = "bench-minimal"

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return _TOOLS

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        params: dict[str, Any] = ctx.request.completion_params

        async def chat(messages: list[Message]) -> Message:
            if not ctx.debug_enabled:
                return (await ctx.chat(messages, **params)).message
            ctx.log_event("pre_llm", num_messages=len(messages), last_message=messages[-1])
            reply = await ctx.chat(messages, **params)
            ctx.log_event("llm_response", message=reply.message, finish_reason=reply.finish_reason)
            return reply.message

        messages = await converse(ctx.request.messages, ctx.request.max_turns, chat)
        if ctx.debug_enabled:
            ctx.log_event("rollout_complete", final_messages=messages, reward=1.0)
        return ctx.complete(messages, reward=1.0)


agent_loop = MinimalAgentLoop()
