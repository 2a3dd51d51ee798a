"""The agent that lets a model use the tools of an MCP server."""

import logging
import re
import time
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext, RolloutResult
from osmosis_ai.rollout.core.exceptions import ToolExecutionError
from osmosis_ai.rollout.core.messages import get_message_content
from osmosis_ai.rollout.core.schemas import MessageDict, OpenAIFunctionToolSchema, RolloutRequest
from osmosis_ai.rollout.core.tools import (
    create_tool_error_result,
    create_tool_result,
    execute_tool_calls,
    get_tool_call_info,
)
from osmosis_ai.rollout.mcp.errors import MCPLoadError
from osmosis_ai.rollout.mcp.loader import load_mcp_server
from osmosis_ai.rollout.mcp.results import (
    extract_tool_value as _extract_tool_value,
    is_error_result,
    is_input_request,
    tool_result_text,
)
from osmosis_ai.rollout.mcp.schemas import mcp_tool_to_openai as _mcp_tool_to_openai
from osmosis_ai.rollout.mcp.tool_server import ToolServer

__all__ = ["MCPAgentLoop", "MCPLoadError", "_extract_tool_value", "_mcp_tool_to_openai", "load_mcp_agent"]

logger = logging.getLogger(__name__)

DEFAULT_TOOL_TIMEOUT_SECONDS = 60.0
MAX_CONCURRENT_TOOL_CALLS = 32
MAX_ERROR_CHARACTERS = 2000
SUMMARY_CHARACTERS = 200
MAX_TOOL_NAME_LENGTH = 64

# What every provider takes as the name of a function; MCP also knows dots and slashes.
_TOOL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_PYDANTIC_ADVICE = re.compile(r"\n\s*For further information visit \S+")


class MCPAgentLoop(RolloutAgentLoop):
    """Lets the model call the server's tools until it answers without a call, or has had ``max_turns`` turns.

    The calls of one turn run together, up to ``MAX_CONCURRENT_TOOL_CALLS`` of them, and are answered in order. A call
    that fails is answered with an error message, and the rollout goes on. The result has no reward.

    Args:
        mcp_server: a FastMCP server, or anything with ``list_tools`` and ``call_tool``.
        agent_name: the instance's ``name``.
        tool_timeout_seconds: how long one call may take; ``None`` for no limit. A plain function runs on in its thread.

    Raises:
        MCPLoadError: the tools cannot be listed. A tool whose schema cannot be understood is left out, with a warning.
        ValueError: ``tool_timeout_seconds`` is not above 0.
    """

    name = "mcp_agent"

    def __init__(
        self,
        mcp_server: Any,
        agent_name: str = "mcp_agent",
        *,
        tool_timeout_seconds: float | None = DEFAULT_TOOL_TIMEOUT_SECONDS,
    ) -> None:
        if tool_timeout_seconds is not None and not tool_timeout_seconds > 0:
            raise ValueError(f"tool_timeout_seconds must be above 0, got {tool_timeout_seconds}.")
        self.name = agent_name
        self.mcp_server = mcp_server
        self.tool_timeout_seconds = tool_timeout_seconds
        self._tool_server = ToolServer(mcp_server)
        self._tools, self._server_names = _convert(self._tool_server.list_tools())
        if not self._tools:
            logger.warning("The MCP server offers no tools; import the modules that define them in main.py.")

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        """All tools, whatever the request."""
        return list(self._tools)

    def get_default_tools(self) -> list[OpenAIFunctionToolSchema]:
        """All tools."""
        return list(self._tools)

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        """Run one rollout. Its finish reason is the model's, ``stop`` where it gave none, or ``max_turns``."""
        async with self._tool_server.running():
            return await self._run(ctx)

    async def _run(self, ctx: RolloutContext) -> RolloutResult:
        request = ctx.request
        messages = list(request.messages)

        async def answer(tool_call: dict[str, Any]) -> dict[str, str]:
            started = time.monotonic()
            try:
                return await self._answer(tool_call)
            finally:
                ctx.record_tool_call(latency_ms=_milliseconds_since(started))

        for turn in range(1, request.max_turns + 1):
            ctx.log_event("pre_llm", turn=turn, num_messages=len(messages))
            started = time.monotonic()
            reply = await ctx.chat(messages, **request.completion_params)
            messages.append(reply.message)
            tool_calls = reply.tool_calls if reply.has_tool_calls else []
            ctx.log_event(
                "llm_response",
                turn=turn,
                message_summary=_summary(reply.message),
                has_tool_calls=bool(tool_calls),
                num_tool_calls=len(tool_calls),
                finish_reason=reply.finish_reason,
                latency_ms=_milliseconds_since(started),
            )
            if not tool_calls:
                return _complete(ctx, messages, turn, reply.finish_reason or "stop")

            started = time.monotonic()
            results = await execute_tool_calls(
                tool_calls,
                answer,
                max_concurrency=MAX_CONCURRENT_TOOL_CALLS,
                timeout_seconds=self.tool_timeout_seconds,
                errors_as_results=True,
            )
            messages.extend(results)
            ctx.log_event(
                "tool_results",
                turn=turn,
                num_results=len(results),
                results_summary=[_summary(result) for result in results],
                latency_ms=_milliseconds_since(started),
            )
        return _complete(ctx, messages, max(request.max_turns, 0), "max_turns")

    async def _answer(self, tool_call: dict[str, Any]) -> dict[str, str]:
        try:
            call_id, name, arguments = get_tool_call_info(tool_call)
            result = await self._tool_server.call(self._server_names.get(name, name), arguments)
            if is_input_request(result):
                raise ToolExecutionError("The tool asks for input, which nobody can give here")
            text = tool_result_text(result)
            return (create_tool_error_result if is_error_result(result) else create_tool_result)(call_id, text)
        except Exception as error:
            call_id = _call_id(tool_call)
            logger.warning(
                "MCP tool call %a failed with %s: %a; the model gets the error",
                call_id,
                type(error).__name__,
                str(error)[:SUMMARY_CHARACTERS],
                exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
            )
            return create_tool_error_result(call_id, _error_text(error))


def load_mcp_agent(mcp_path: str | Path) -> MCPAgentLoop:
    """The agent loop for the MCP tools in the directory ``mcp_path``: what ``--mcp DIR`` stands for.

    Raises:
        MCPLoadError: as ``load_mcp_server`` and ``MCPAgentLoop`` do.
    """
    return MCPAgentLoop(load_mcp_server(mcp_path))


def _convert(tools: list[Any]) -> tuple[list[OpenAIFunctionToolSchema], dict[str, str]]:
    """The definitions, and the server's name of each by the one it is offered under."""
    definitions: list[OpenAIFunctionToolSchema] = []
    server_names: dict[str, str] = {}
    stated_names = [getattr(tool, "name", None) for tool in tools]
    taken = {name for name in stated_names if isinstance(name, str) and _TOOL_NAME.fullmatch(name)}
    for name, tool in zip(stated_names, tools, strict=True):
        try:
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f"its name is {name!r}")
            offered_name = name if _TOOL_NAME.fullmatch(name) else _usable_name(name, taken)
            definition = _mcp_tool_to_openai(offered_name, tool.description, tool.parameters)
        except Exception as error:  # noqa: BLE001 - a tool may come from anywhere, and one must not cost the others
            logger.warning("MCP tool %a is left out: %s", name, error)
            continue
        if offered_name != name:
            logger.info("MCP tool %a is offered as %s, as providers refuse its name.", name, offered_name)
        taken.add(offered_name)
        server_names[offered_name] = name
        definitions.append(definition)
    return definitions, server_names


def _usable_name(name: str, taken: set[str]) -> str:
    usable = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if not re.match(r"[A-Za-z_]", usable):
        usable = f"_{usable}"
    candidate, number = usable[:MAX_TOOL_NAME_LENGTH], 1
    while candidate in taken:
        number += 1
        suffix = f"_{number}"
        candidate = usable[: MAX_TOOL_NAME_LENGTH - len(suffix)] + suffix
    return candidate


def _complete(ctx: RolloutContext, messages: list[MessageDict], turns: int, finish_reason: str) -> RolloutResult:
    ctx.log_event("rollout_complete", finish_reason=finish_reason, total_turns=turns, num_messages=len(messages))
    return ctx.complete(messages, finish_reason=finish_reason)


def _call_id(tool_call: Any) -> str:
    call_id = tool_call.get("id") if isinstance(tool_call, dict) else None
    return call_id if isinstance(call_id, str) and call_id else "unknown"


def _error_text(error: Exception) -> str:
    return _PYDANTIC_ADVICE.sub("", str(error))[:MAX_ERROR_CHARACTERS] or type(error).__name__


def _summary(message: MessageDict) -> dict[str, Any]:
    return {"role": message.get("role"), "content": get_message_content(message)[:SUMMARY_CHARACTERS]}


def _milliseconds_since(started: float) -> float:
    return (time.monotonic() - started) * 1000
