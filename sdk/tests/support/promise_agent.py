"""The agent that the promise is tested with: ``metadata.do`` says how it behaves once it has had its first reply."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext
from osmosis_ai.rollout.core.reward_functions import osmosis_reward
from osmosis_ai.rollout.core.schemas import MessageDict, OpenAIFunctionToolSchema, RolloutRequest

ASLEEP_SECONDS = 600.0
SLEEPING_TOOLS = 20

End = Callable[[RolloutContext, list[MessageDict]], Awaitable[Any]]


@osmosis_reward
def broken_reward(solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> float:
    """A reward function with a mistake in it."""
    return 1.0 / len(ground_truth)


async def complete(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    return ctx.complete(messages, reward=1.0)


async def chat_again(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    messages.append({"role": "user", "content": "And then?"})
    reply = await ctx.chat(messages)
    return ctx.complete([*messages, reply.message], reward=1.0)


async def hang(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    await asyncio.Event().wait()


async def keep_calling(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    while True:
        await ctx.chat(messages)


async def swallow_cancellation(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


async def sleep_in_threads(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    await asyncio.gather(*(asyncio.to_thread(time.sleep, ASLEEP_SECONDS) for _ in range(SLEEPING_TOOLS)))


async def give_nan_reward(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    return ctx.complete(messages, reward=float("nan"))


async def fail_in_reward(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    return ctx.complete(messages, reward=broken_reward("4", ""))


async def fail(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    raise KeyError("a mistake in the agent")


async def exit_process(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    raise SystemExit(3)


async def give_too_much(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    return ctx.complete([*messages, {"role": "assistant", "content": "x" * 1_000_000}], reward=1.0)


ENDS: dict[str, End] = {
    end.__name__: end
    for end in (
        complete,
        chat_again,
        hang,
        keep_calling,
        swallow_cancellation,
        sleep_in_threads,
        give_nan_reward,
        fail_in_reward,
        fail,
        exit_process,
        give_too_much,
    )
}


class PromiseAgent(RolloutAgentLoop):
    """One chat call, and then the end that ``metadata.do`` names (default ``complete``)."""

    name = "promise"

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return []

    async def run(self, ctx: RolloutContext) -> Any:
        messages = list(ctx.request.messages)
        reply = await ctx.chat(messages)
        messages.append(reply.message)
        return await ENDS[ctx.request.metadata.get("do", "complete")](ctx, messages)


agent_loop = PromiseAgent()
