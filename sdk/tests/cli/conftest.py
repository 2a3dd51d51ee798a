import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from osmosis_ai.rollout.config.settings import reset_settings

WriteModule = Callable[[str, str], None]

AGENT = '''
    from osmosis_ai.rollout import RolloutAgentLoop


    class Agent(RolloutAgentLoop):
        name = "agent"
        finish_reason = "stop"

        def get_tools(self, request):
            return [{"type": "function", "function": {"name": "add", "description": "Adds."}}]

        async def run(self, ctx):
            ctx.log_event("pre_llm", turn=1)
            reply = await ctx.chat(list(ctx.request.messages), **ctx.request.completion_params)
            return ctx.complete([*ctx.request.messages, reply.message], finish_reason=self.finish_reason, reward=1.0)


    agent_loop = Agent()
'''


def write_agent(directory: Path, finish_reason: str = "stop") -> None:
    """Write ``user_agent.py``, whose ``agent_loop`` chats once and ends with ``finish_reason``."""
    source = dedent(AGENT).replace('finish_reason = "stop"', f'finish_reason = "{finish_reason}"')
    (directory / "user_agent.py").write_text(source.lstrip())


@pytest.fixture
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty one, with nobody's settings; modules imported from it are forgotten."""
    for name in list(os.environ):
        if name.upper().startswith("OSMOSIS_"):
            monkeypatch.delenv(name)
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    reset_settings()
    yield tmp_path
    reset_settings()
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def write_module(working_directory: Path) -> WriteModule:
    """Writes a Python file into the working directory."""

    def write(file: str, source: str) -> None:
        (working_directory / file).write_text(dedent(source).strip() + "\n")

    return write


@pytest.fixture
def user_agent(working_directory: Path) -> str:
    """The ``module:attribute`` of a valid agent loop in the working directory."""
    write_agent(working_directory)
    return "user_agent:agent_loop"
