"""The agent, and the app that serves it to a trainer: `python -m server`, or `uvicorn server:app`."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from osmosis_ai.rollout import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    RolloutAgentLoop,
    RolloutContext,
    RolloutRequest,
    RolloutResult,
    RolloutServerSettings,
    RolloutSettings,
    create_app,
)
from osmosis_ai.rollout.core.messages import get_message_content, parse_tool_calls
from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema
from osmosis_ai.rollout.core.tools import execute_tool_calls
from rewards import compute_reward
from tools import TOOLS, call_tool

SUMMARY_CHARACTERS = 200


class CalculatorAgentLoop(RolloutAgentLoop):
    """Lets the model call tools until it answers without a call, or reaches a limit of the request."""

    name = "calculator"

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return [tool.schema for tool in TOOLS.values()]

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        request = ctx.request
        messages = list(request.messages)  # only ever appended to: the trainer keeps the tokens of what it was sent
        answer, finish_reason = "", "max_turns"
        turn = num_tool_calls = context_tokens = 0
        rollout_started = time.monotonic()

        async def answer_call(tool_call: Any) -> dict[str, str]:
            started = time.monotonic()
            message = await call_tool(tool_call)
            ctx.record_tool_call(latency_ms=milliseconds_since(started))
            return message

        while turn < request.max_turns:
            turn += 1
            summaries = [summarize(message) for message in messages]
            ctx.log_event("pre_llm", turn=turn, num_messages=len(messages), messages_summary=summaries)

            started = time.monotonic()
            reply = await ctx.chat(messages, **request.completion_params)
            messages.append(reply.message)
            answer, tool_calls = get_message_content(reply.message), parse_tool_calls(reply.message)
            ctx.log_event(
                "llm_response",
                turn=turn,
                message_summary=summarize(reply.message),
                has_tool_calls=bool(tool_calls),
                num_tool_calls=len(tool_calls),
                finish_reason=reply.finish_reason,
                latency_ms=milliseconds_since(started),
            )
            if not tool_calls:
                finish_reason = reply.finish_reason
                break

            started = time.monotonic()
            results = await execute_tool_calls(tool_calls, answer_call)
            messages.extend(results)
            num_tool_calls += len(results)
            ctx.log_event(
                "tool_results",
                turn=turn,
                num_results=len(results),
                results_summary=[summarize(result) for result in results],
                latency_ms=milliseconds_since(started),
            )
            # The tokens of the conversation: the prompt as the trainer counts it, and the reply.
            context_tokens = max(context_tokens, reply.usage.get("prompt_tokens") or 0)
            context_tokens += reply.usage.get("completion_tokens") or 0
            if context_tokens >= request.max_tokens_total:
                finish_reason = "max_tokens"
                break

        reward = compute_reward(answer, request.metadata.get("ground_truth"))
        ctx.log_event(
            "rollout_complete",
            finish_reason=finish_reason,
            total_turns=turn,
            num_messages=len(messages),
            num_tool_calls=num_tool_calls,
            reward=reward,
            latency_ms=milliseconds_since(rollout_started),
            final_messages=messages,
            metadata=request.metadata,
        )
        return ctx.complete(messages, finish_reason=finish_reason, reward=reward)


def summarize(message: dict[str, Any]) -> dict[str, Any]:
    """What a trace tells of a message."""
    summary = {"role": message.get("role"), "content": get_message_content(message)[:SUMMARY_CHARACTERS]}
    tool_calls = [str(tool_call)[:SUMMARY_CHARACTERS] for tool_call in parse_tool_calls(message)]
    return summary | {"tool_calls": tool_calls} if tool_calls else summary


def milliseconds_since(started: float) -> float:
    return (time.monotonic() - started) * 1000


def trace_directory() -> str | None:
    """Each start of the server has a directory of its own, made when the first trace is written."""
    parent = os.environ.get("ROLLOUT_DEBUG_DIR")
    return str(Path(parent, str(int(time.time())))) if parent else None


def durable_settings() -> RolloutSettings:
    """The settings, with accepted rollouts on record in a file, so that they survive a restart."""
    journal = os.environ.get("OSMOSIS_ROLLOUT_SERVER_JOURNAL", ".osmosis/journal.db")
    return RolloutSettings(server=RolloutServerSettings(journal=journal))


agent_loop = CalculatorAgentLoop()
app = create_app(agent_loop, settings=durable_settings(), debug_dir=trace_directory())

if __name__ == "__main__":
    import uvicorn

    port = os.environ.get("ROLLOUT_SERVER_PORT", str(DEFAULT_PORT))
    if not port.isdecimal() or int(port) > 65535:
        sys.exit(f"ROLLOUT_SERVER_PORT must be a port number, not {port!r}.")
    uvicorn.run(app, host=os.environ.get("ROLLOUT_SERVER_HOST", DEFAULT_HOST), port=int(port))
