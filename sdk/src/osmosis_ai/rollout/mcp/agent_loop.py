"""The agent that lets a model use the tools of an MCP server."""

import inspect
import logging
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext, RolloutResult
from osmosis_ai.rollout.core.exceptions import ToolExecutionError
from osmosis_ai.rollout.core.loading import import_module_attribute
from osmosis_ai.rollout.core.messages import get_message_text, summarize
from osmosis_ai.rollout.core.offload import call_in_thread
from osmosis_ai.rollout.core.schemas import TOOL_NAME_PATTERN, OpenAIFunctionToolSchema, RolloutRequest
from osmosis_ai.rollout.core.text import cut
from osmosis_ai.rollout.core.toolbox import Tool, Toolbox, plain_arguments
from osmosis_ai.rollout.core.tools import ContainedCall, ContentParts
from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.core.where import place_of_function
from osmosis_ai.rollout.mcp.failures import told_of_result, told_to_the_model
from osmosis_ai.rollout.mcp.loader import MCPLoadError, load_mcp_folder
from osmosis_ai.rollout.mcp.remote import MCPServerError, RemoteToolServer, is_url
from osmosis_ai.rollout.mcp.results import (
    extract_tool_value as _extract_tool_value,
    is_error_result,
    is_input_request,
    tool_result_content,
    tool_result_text,
)
from osmosis_ai.rollout.mcp.schemas import mcp_tool_to_openai as _mcp_tool_to_openai
from osmosis_ai.rollout.mcp.tool_server import Call, ToolServer

__all__ = ["MCPAgentLoop", "MCPLoadError", "_extract_tool_value", "_mcp_tool_to_openai", "load_mcp_agent"]

logger = logging.getLogger(__name__)

DEFAULT_TOOL_TIMEOUT_SECONDS = 60.0
MAX_CONCURRENT_TOOL_CALLS = 32
LOGGED_CHARACTERS = 200
MAX_TOOL_NAME_LENGTH = 64
USUAL_MAX_TOOLS = 128
"""As OpenAI's API has it."""


class MCPAgentLoop(RolloutAgentLoop):
    """Lets the model call the server's tools until it answers without a call, or has had ``max_turns`` turns.

    The calls of one turn run together, up to ``MAX_CONCURRENT_TOOL_CALLS`` of them, and are answered in order. A call
    that fails is answered with an error message, and the rollout goes on: that of a ``ToolError``; what any other
    exception says is logged, and kept from the model.

    Args:
        mcp_server: a FastMCP server, a ``RemoteToolServer``, or anything with ``list_tools`` and ``call_tool``.
        agent_name: the instance's ``name``.
        tool_timeout_seconds: how long one call may take; ``None`` for no limit. A plain function runs on in its thread.
        reward: scores the last answer where there is a ground truth: ``reward(solution_str, ground_truth)``, plain or a
            coroutine function, and with the request's metadata third if it takes that. Without one there is no reward.

    Raises:
        MCPLoadError: the tools cannot be listed, or ``reward`` takes other arguments. A tool whose schema cannot be
            understood is left out, with a warning.
        ValueError: ``tool_timeout_seconds`` is not above 0.
    """

    name = "mcp_agent"

    def __init__(
        self,
        mcp_server: Any,
        agent_name: str = "mcp_agent",
        *,
        tool_timeout_seconds: float | None = DEFAULT_TOOL_TIMEOUT_SECONDS,
        reward: Callable[..., Any] | None = None,
    ) -> None:
        if tool_timeout_seconds is not None and not tool_timeout_seconds > 0:
            raise ValueError(f"tool_timeout_seconds must be above 0, got {tool_timeout_seconds}.")
        self.name = agent_name
        self.mcp_server = mcp_server
        self.tool_timeout_seconds = tool_timeout_seconds
        self.reward = reward
        self._reward_arguments = 0 if reward is None else _number_of_arguments(reward)
        self._tool_server = mcp_server if isinstance(mcp_server, RemoteToolServer) else ToolServer(mcp_server)
        definitions = _convert(self._tool_server.list_tools())
        self._tools = Toolbox(
            *(_McpTool(name, schema, tool_timeout_seconds) for name, schema in definitions),
            state=_Session,
            max_concurrency=MAX_CONCURRENT_TOOL_CALLS,
        )
        if not definitions:
            logger.warning("The MCP server offers no tools; import the modules that define them in main.py.")
        elif len(definitions) > USUAL_MAX_TOOLS:
            logger.warning(
                "The MCP server offers %d tools, and all of them are sent with each call; many models take %d at most.",
                len(definitions),
                USUAL_MAX_TOOLS,
            )

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        """All tools, whatever the request."""
        return self._tools.schemas

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        """Run one rollout. Its finish reason is the model's, ``stop`` where it gave none, or ``max_turns``."""
        async with self._tool_server.session(ctx) as call:
            return await self._run(ctx, _Session(call))

    async def _run(self, ctx: RolloutContext, session: "_Session") -> RolloutResult:
        request, turns = ctx.request, 0
        messages = list(request.messages)
        finish_reason = "max_turns"

        for turn in range(request.max_turns):
            turns = turn + 1
            ctx.log_event("pre_llm", turn=turn, num_messages=len(messages), messages_summary=summarize(messages))
            reply = await ctx.chat(messages, **request.completion_params)
            messages.append(reply.message)
            calls, ended = reply.tool_calls, reply.finish_reason
            ctx.log_event("llm_response", turn=turn, has_tool_calls=bool(calls), tool_calls=calls, finish_reason=ended)
            if not calls:
                finish_reason = ended or "stop"
                break

            results = await self._tools.answer(ctx, calls, session)
            messages += results
            ctx.log_event("tool_results", turn=turn, num_tool_results=len(results), results_summary=summarize(results))

        reward = await self._score(get_message_text(messages[-1]) if turns else "", request.metadata)
        ctx.log_event("rollout_complete", finish_reason=finish_reason, reward=reward, total_turns=turns)
        return ctx.complete(messages, finish_reason=finish_reason, reward=reward)

    async def _score(self, answer: str, metadata: dict[str, Any]) -> float | None:
        truth = metadata.get("ground_truth")
        if self.reward is None or truth is None:
            return None
        arguments = (answer, truth, metadata)[: self._reward_arguments]
        if inspect.iscoroutinefunction(self.reward):
            score = await self.reward(*arguments)
        else:
            score = await call_in_thread(self.reward, *arguments)
        return cast("float | None", score)


@dataclass(frozen=True, slots=True)
class _Session:
    """What one rollout calls its tools with."""

    call: Call


class _McpTool(Tool):
    """A tool of the server; whatever goes wrong with it is for the model to know, and the rollout goes on."""

    def __init__(self, server_name: str, schema: OpenAIFunctionToolSchema, timeout_seconds: float | None) -> None:
        super().__init__(schema, timeout_seconds)
        self._server_name = server_name

    async def run(self, arguments: dict[str, Any], ctx: RolloutContext, state: Any) -> str | ContentParts:
        """The result: its text, and parts where there are images."""
        plain = plain_arguments(arguments, self.name)
        with ContainedCall():
            try:
                result = await state.call(self._server_name, plain)
                if is_input_request(result):
                    raise ToolExecutionError("The tool asks for input, which nobody can give here")
                content = tool_result_text(result) if is_error_result(result) else tool_result_content(result)
            except MCPServerError:
                raise
            except Exception as error:
                logger.warning(
                    "MCP tool %a failed with %s: %a; the model gets the error",
                    self.name,
                    type(error).__name__,
                    str(error)[:LOGGED_CHARACTERS],
                    exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
                )
                raise ToolExecutionError(told_to_the_model(error, self.name)) from error
        if is_error_result(result):
            raise ToolExecutionError(told_of_result(str(content), self.name))
        return content


def load_mcp_agent(mcp_path: str | Path, reward: str | None = None) -> MCPAgentLoop:
    """The agent loop for the MCP tools in the directory ``mcp_path``, or of the server at that URL: ``--mcp``.

    Its reward is the function that ``reward`` names as ``module:attribute``, or else ``compute_reward`` of
    ``DIR/main.py``, defined there or imported; without either there is none.

    Raises:
        MCPLoadError: as ``load_mcp_server`` and ``MCPAgentLoop`` do.
        CLIError: ``reward`` cannot be imported, or is no function.
    """
    server, own = (RemoteToolServer(str(mcp_path)), None) if is_url(mcp_path) else load_mcp_folder(mcp_path)
    return MCPAgentLoop(server, reward=own if reward is None else _reward_named(reward))


def _reward_named(path: str) -> Callable[..., Any]:
    function = import_module_attribute(path)
    if not callable(function):
        raise CLIError(f"--reward {path} is a {type(function).__name__}; name a function.")
    return cast("Callable[..., Any]", function)


def _number_of_arguments(reward: Callable[..., Any]) -> int:
    """3 where it takes the metadata too, else 2; of what Python cannot say this it is 2."""
    try:
        signature = inspect.signature(reward)
    except (TypeError, ValueError):
        return 2
    for number in (3, 2):
        try:
            signature.bind(*[None] * number)
        except TypeError:
            continue
        return number
    place, name = place_of_function(inspect.unwrap(reward)), getattr(reward, "__name__", type(reward).__name__)
    raise MCPLoadError(
        f"The reward function {name}{signature} cannot be called as {name}(solution_str, ground_truth), nor with the"
        f" metadata third{f' ({place})' if place else ''}: let it take these."
    )


def _convert(tools: list[Any]) -> list[tuple[str, OpenAIFunctionToolSchema]]:
    """The server's name and the definition of each tool that can be offered; MCP's names also know dots and slashes."""
    definitions: dict[str, tuple[str, OpenAIFunctionToolSchema]] = {}
    next_numbers: Counter[str] = Counter()
    stated_names = [getattr(tool, "name", None) for tool in tools]
    taken = {name for name in stated_names if isinstance(name, str) and TOOL_NAME_PATTERN.match(name)}
    for name, tool in zip(stated_names, tools, strict=True):
        try:
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f"its name is {name!r}")
            offered_name = name if TOOL_NAME_PATTERN.match(name) else _usable_name(name, taken, next_numbers)
            if offered_name in definitions:
                raise ValueError("another tool has its name")
            definition = _mcp_tool_to_openai(offered_name, tool.description, tool.parameters)
        except Exception as error:  # noqa: BLE001 - a tool may come from anywhere, and one must not cost the others
            logger.warning("MCP tool %a is left out: %s", cut(str(name), LOGGED_CHARACTERS), error)
            continue
        if offered_name != name:
            shown = cut(name, LOGGED_CHARACTERS)
            logger.info("MCP tool %a is offered as %s, as providers refuse its name.", shown, offered_name)
        taken.add(offered_name)
        definitions[offered_name] = (name, definition)
    return list(definitions.values())


def _usable_name(name: str, taken: set[str], next_numbers: Counter[str]) -> str:
    usable = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if not re.match(r"[A-Za-z_]", usable):
        usable = f"_{usable}"
    usable = candidate = usable[:MAX_TOOL_NAME_LENGTH]
    while candidate in taken:
        next_numbers[usable] += 1
        suffix = f"_{next_numbers[usable] + 1}"
        candidate = usable[: MAX_TOOL_NAME_LENGTH - len(suffix)] + suffix
    return candidate
