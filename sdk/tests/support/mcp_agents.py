"""What the tests of the MCP tools share: directories of tools, and a policy that says what it is told."""

from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

from osmosis_ai.rollout.core.base import RolloutContext, RolloutResult
from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import RolloutMetrics, RolloutRequest
from osmosis_ai.rollout.mcp import MCPAgentLoop

CALCULATOR = Path(__file__).parents[1] / "fixtures" / "mcp_calculator"
QUESTION = {"role": "user", "content": "What is 3 + 4?"}

Message = dict[str, Any]


def write_files(directory: Path, **sources: str) -> Path:
    """Write each source to ``<name>.py``, ``__`` in a name being a folder; return the directory."""
    for name, source in sources.items():
        file = directory / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(source), encoding="utf-8")
    return directory


def calling(*calls: tuple[str, Any]) -> Message:
    """An assistant message that calls tools: pairs of a name and JSON text (or whatever a model may write)."""
    tool_calls = [
        {"id": f"call-{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(calls, start=1)
    ]
    return {"role": "assistant", "content": None, "tool_calls": tool_calls}


def saying(text: str) -> Message:
    """An assistant message without a call."""
    return {"role": "assistant", "content": text}


class ScriptedPolicy:
    """Answers the nth call with the nth message, the last one for ever."""

    def __init__(self, *messages: Message, finish_reason: str = "stop") -> None:
        self.messages = messages
        self.finish_reason = finish_reason
        self.calls: list[dict[str, Any]] = []

    async def chat_completions(self, messages: list[Message], **kwargs: Any) -> CompletionsResult:
        message = self.messages[min(len(self.calls), len(self.messages) - 1)]
        self.calls.append({"messages": list(messages), **kwargs})
        return CompletionsResult(message=message, token_ids=[], logprobs=[], usage={}, finish_reason=self.finish_reason)

    def get_metrics(self) -> RolloutMetrics:
        return RolloutMetrics(num_llm_calls=len(self.calls))


def context_for(
    loop: MCPAgentLoop, policy: ScriptedPolicy, debug_dir: Path | None = None, **fields: Any
) -> RolloutContext:
    """A rollout's context, with ``fields`` in place of the request's defaults."""
    request = RolloutRequest.model_validate(
        {
            "rollout_id": "rollout-1",
            "server_url": "http://trainer",
            "messages": [QUESTION],
            "completion_params": {"temperature": 0.5, "top_k": 40},
            **fields,
        }
    )
    return RolloutContext(
        request=request,
        tools=loop.get_tools(request),
        llm=policy,
        _debug_dir=None if debug_dir is None else str(debug_dir),
    )


async def run(loop: MCPAgentLoop, policy: ScriptedPolicy, **fields: Any) -> RolloutResult:
    """Run one rollout."""
    return await loop.run(context_for(loop, policy, **fields))


async def answers_to(loop: MCPAgentLoop, *calls: tuple[str, Any]) -> list[str]:
    """What the model is told when it makes these calls in one turn."""
    result = await run(loop, ScriptedPolicy(calling(*calls), saying("done")))
    return [message["content"] for message in result.final_messages if message["role"] == "tool"]


async def answer_to(loop: MCPAgentLoop, name: str, arguments: Any = "{}") -> str:
    """What the model is told when it makes this call."""
    (answer,) = await answers_to(loop, (name, arguments))
    return answer


class OldServer:
    """A server as FastMCP 2 made it, and as other code puts one in place: nothing but a ``_tool_manager``."""

    def __init__(self, *tools: Any, results: dict[str, Any] | None = None) -> None:
        self.name = "old"
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.results = results or {}
        self._tool_manager = SimpleNamespace(_tools={tool.name: tool for tool in tools}, call_tool=self._call)

    async def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        self.calls.append((name, arguments))
        result = self.results[name]
        if isinstance(result, Exception):
            raise result
        return result


def old_tool(name: str, parameters: Any = None, description: str | None = None, **fields: Any) -> Any:
    """A tool of an ``OldServer``."""
    return SimpleNamespace(name=name, description=description, parameters=parameters or {}, **fields)


def tool_result(value: Any = None, *texts: str) -> Any:
    """What ``call_tool`` gives: structured content, and text."""
    content = [SimpleNamespace(type="text", text=text) for text in texts]
    return SimpleNamespace(structured_content=value, content=content)
