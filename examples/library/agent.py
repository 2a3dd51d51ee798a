"""The agent: it looks things up in a box of notes until the model answers."""

from typing import Any

from examples.library.rewards import compute_reward
from examples.library.tools import TOOLS
from osmosis_ai.rollout import (
    OpenAIFunctionToolSchema,
    RolloutAgentLoop,
    RolloutContext,
    RolloutRequest,
    RolloutResult,
    get_message_content,
)


class LibrarianAgentLoop(RolloutAgentLoop):
    """Lets the model search and read, several notes at once, until it answers or reaches a limit of the request."""

    name = "librarian"

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return TOOLS.schemas

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        request = ctx.request
        messages = list(request.messages)  # a copy, only ever appended to
        finish_reason = "max_turns"

        for _ in range(request.max_turns):
            reply = await ctx.chat(messages, **request.completion_params)
            messages.append(reply.message)
            if not reply.tool_calls:
                finish_reason = reply.finish_reason
                break
            messages += await TOOLS.answer(ctx, reply.tool_calls)
            if ctx.context_tokens >= request.max_tokens_total:
                finish_reason = "max_tokens"
                break

        return ctx.complete(messages, finish_reason=finish_reason, reward=self.reward(messages, request.metadata))

    def reward(self, messages: list[dict[str, Any]], metadata: dict[str, Any]) -> float | None:
        """The reward of a conversation; `None` where the right answer is not known."""
        ground_truth = metadata.get("ground_truth")
        if not isinstance(ground_truth, str):
            return None
        answer = messages[-1] if messages and messages[-1].get("role") == "assistant" else {}
        return compute_reward(get_message_content(answer), ground_truth)


agent_loop = LibrarianAgentLoop()
