"""An agent whose every step the request's metadata decides: how many turns, which tools in each, what it ends with."""

import asyncio
from typing import Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext, RolloutResult
from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.core.tools import create_tool_error_result, create_tool_result, execute_tool_calls
from support.rollouts import tool

OFFERED = ("add", "fail", "hang", "refuse")


class MeasuredAgent(RolloutAgentLoop):
    """``add`` works, ``fail`` raises, ``refuse`` answers with an error, ``hang`` takes too long."""

    name = "measured"

    def get_tools(self, request: RolloutRequest) -> Any:
        return [tool(name) for name in OFFERED]

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        wanted = ctx.request.metadata
        messages = list(ctx.request.messages)
        for _ in range(wanted.get("turns", 1)):
            reply = await ctx.chat(messages, **ctx.request.completion_params)
            messages.append(reply.message)
            calls = [_call(index, name) for index, name in enumerate(wanted.get("tools", ()))]
            messages += await execute_tool_calls(calls, _execute, timeout_seconds=0.05, errors_as_results=True)
        if "raise" in wanted:
            raise RuntimeError(wanted["raise"])
        return ctx.complete(messages, wanted.get("finish_reason", "stop"), reward=wanted.get("reward", 1.0))


async def _execute(tool_call: dict[str, Any]) -> dict[str, str]:
    name, call_id = tool_call["function"]["name"], tool_call["id"]
    if name == "fail":
        raise ValueError("no")
    if name == "refuse":
        return create_tool_error_result(call_id, "no")
    if name == "hang":
        await asyncio.Event().wait()
    return create_tool_result(call_id, "4")


def _call(index: int, name: str) -> dict[str, Any]:
    return {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": "{}"}}


agent_loop = MeasuredAgent()
