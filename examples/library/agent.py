"""The agent: it looks things up in a box of notes until the model answers."""

import time
from typing import Any

from examples.library.rewards import compute_reward
from examples.library.tools import TOOLS, call_tool, schema_of
from osmosis_ai.rollout import (
    OpenAIFunctionToolSchema,
    RolloutAgentLoop,
    RolloutContext,
    RolloutRequest,
    RolloutResult,
    execute_tool_calls,
    get_message_content,
)

TOOLS_AT_ONCE = 8
TOOL_TIMEOUT_SECONDS = 10.0


class LibrarianAgentLoop(RolloutAgentLoop):
    """Lets the model search and read, several notes at once, until it answers or reaches a limit of the request."""

    name = "librarian"

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return [schema_of(name, tool) for name, tool in TOOLS.items()]

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        request = ctx.request
        messages = list(request.messages)  # a copy, only ever appended to
        finish_reason = "max_turns"
        context_tokens = 0

        async def answer_call(tool_call: dict[str, Any]) -> dict[str, str]:
            started = time.monotonic()
            message = await call_tool(tool_call)
            ctx.record_tool_call(latency_ms=(time.monotonic() - started) * 1000)
            return message

        for turn in range(1, request.max_turns + 1):
            reply = await ctx.chat(messages, **request.completion_params)
            messages.append(reply.message)
            ctx.log_event("llm_response", turn=turn, message=reply.message, finish_reason=reply.finish_reason)
            if not reply.tool_calls:
                finish_reason = reply.finish_reason
                break
            results = await execute_tool_calls(
                reply.tool_calls, answer_call, max_concurrency=TOOLS_AT_ONCE, timeout_seconds=TOOL_TIMEOUT_SECONDS
            )
            messages.extend(results)
            ctx.log_event("tool_results", turn=turn, results=results)
            context_tokens = max(context_tokens, reply.usage.get("prompt_tokens", 0))
            context_tokens += reply.usage.get("completion_tokens", 0)
            if context_tokens >= request.max_tokens_total:
                finish_reason = "max_tokens"
                break

        reward = self.reward(messages, request.metadata)
        ctx.log_event(
            "rollout_complete",
            finish_reason=finish_reason,
            reward=reward,
            final_messages=messages,
            metadata=request.metadata,
        )
        return ctx.complete(messages, finish_reason=finish_reason, reward=reward)

    def reward(self, messages: list[dict[str, Any]], metadata: dict[str, Any]) -> float | None:
        """The reward of a conversation; `None` where the right answer is not known."""
        ground_truth = metadata.get("ground_truth")
        if not isinstance(ground_truth, str):
            return None
        answer = messages[-1] if messages and messages[-1].get("role") == "assistant" else {}
        return compute_reward(get_message_content(answer), ground_truth)


agent_loop = LibrarianAgentLoop()
