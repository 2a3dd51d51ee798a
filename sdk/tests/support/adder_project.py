"""A folder with an agent that adds, three rows that it can solve, and `osmosis test` on them."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from osmosis_ai.cli import main
from support.model_endpoint import ModelEndpoint

DEADLINE_SECONDS = 60.0

AGENT = """
import asyncio
from pathlib import Path

from osmosis_ai.rollout import OpenAIFunctionToolSchema, RolloutAgentLoop
from osmosis_ai.rollout import create_tool_result, execute_tool_calls, get_tool_call_info

NUMBERS = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]}
ADD = {"type": "function", "function": {"name": "add", "description": "Add two numbers", "parameters": NUMBERS}}


class Adder(RolloutAgentLoop):
    name = "adder"

    def get_tools(self, request):
        return [OpenAIFunctionToolSchema.model_validate(ADD)]

    async def run(self, ctx):
        if "fail" in ctx.request.metadata:
            raise RuntimeError(ctx.request.metadata["fail"])
        if "hang" in ctx.request.metadata:
            Path("hanging").touch()
            await asyncio.Event().wait()
        messages = list(ctx.request.messages)
        for _ in range(ctx.request.max_turns):
            reply = await ctx.chat(messages, **ctx.request.completion_params)
            messages.append(reply.message)
            if not reply.has_tool_calls:
                break
            messages += await execute_tool_calls(reply.tool_calls, self.add)
        answer = (messages[-1]["content"] or "").rpartition("#### ")[2]
        ctx.log_event("done", answer=answer)
        return ctx.complete(messages, reward=float(answer == ctx.request.metadata["ground_truth"]))

    async def add(self, call):
        call_id, _, arguments = get_tool_call_info(call)
        return create_tool_result(call_id, str(arguments["a"] + arguments["b"]))


adder = Adder()
"""
AGENT_OPTIONS = ["-m", "agent:adder", "-d", "rows.jsonl"]
SCRIPT = ["--model", "builtin/arithmetic"]


def row(a: int, b: int, **extra: Any) -> dict[str, Any]:
    return {"system_prompt": "Use add.", "user_prompt": f"What is {a} + {b}?", "ground_truth": str(a + b), **extra}


def write_rows(*rows: dict[str, Any]) -> None:
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture
def adder_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an agent module and three solvable rows, as current directory."""
    (tmp_path / "agent.py").write_text(AGENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for variable in ("OPENAI_API_KEY", "LITELLM_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    write_rows(row(1, 2), row(30, 4), row(-5, 5))
    yield tmp_path
    sys.modules.pop("agent", None)


def run(*arguments: str, model: list[str] = SCRIPT) -> int:
    return main(["test", *AGENT_OPTIONS, *model, *arguments])


def run_against(endpoint: ModelEndpoint, *arguments: str) -> int:
    return run(*arguments, model=["--model", "m", "--base-url", endpoint.url])


def results_of(name: str = "results.json") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(name).read_bytes())
    return document


def wait_for_file(path: Path) -> None:
    deadline_seconds = time.monotonic() + DEADLINE_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline_seconds, f"{path} did not appear"
        time.sleep(0.01)
