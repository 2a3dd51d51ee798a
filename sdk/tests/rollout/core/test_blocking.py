"""Calls that block the event loop, as they can be seen in the source of an agent."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from osmosis_ai.rollout.core.blocking import blocking_calls
from osmosis_ai.rollout.core.validator import validate_agent_loop

AGENT = """
import subprocess as sp
import time
import urllib.request
from time import sleep as nap
from osmosis_ai.rollout import RolloutAgentLoop
import blocking_tools

class Agent(RolloutAgentLoop):
    name = "blocking"

    def get_tools(self, request):
        time.sleep(0)  # in a thread
        return []

    async def run(self, ctx):
        nap(1)
        sp.run(["true"])
        urllib.request.urlopen("http://127.0.0.1")
        time = ctx
        def later():
            sp.run(["true"])
        await ctx.sleep(1)
        return [sp.check_output(["true"]) for _ in range(2)]
"""
TOOLS = """
import requests

def plain(url):
    return requests.get(url)

async def asynchronous(url):
    return requests.get(url)
"""


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    (tmp_path / "requests.py").write_text("def get(url): ...")
    (tmp_path / "blocking_agent.py").write_text(AGENT)
    (tmp_path / "blocking_tools.py").write_text(TOOLS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    names = ("blocking_agent", "blocking_tools", "requests")
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    yield importlib.import_module("blocking_agent").Agent()
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(before)


def test_those_of_coroutines_are_told_under_whatever_name(agent: object) -> None:
    assert [(place, sentence.partition(" blocks")[0]) for place, sentence in blocking_calls(agent)] == [
        ("blocking_agent.py:17", "time.sleep"),
        ("blocking_agent.py:18", "subprocess.run"),
        ("blocking_agent.py:19", "urllib.request.urlopen"),
        ("blocking_agent.py:24", "subprocess.check_output"),
        ("blocking_tools.py:8", "requests.get"),
    ]


def test_a_module_that_the_agent_does_not_import_is_not_its(
    agent: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another agent, or a test, that is loaded beside it."""
    (tmp_path / "blocking_stranger.py").write_text(TOOLS)
    monkeypatch.setitem(sys.modules, "blocking_stranger", importlib.import_module("blocking_stranger"))
    assert not [place for place, _ in blocking_calls(agent) if "stranger" in place]


@pytest.mark.parametrize("statement", ["from . import tools", "from .tools import plain", "import blocking.tools"])
def test_modules_of_a_package_are_found_however_they_are_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    package = tmp_path / "blocking"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tools.py").write_text(TOOLS.replace("requests", "httpx"))
    (package / "agent.py").write_text(f"from .middle import *\nclass Agent: ...\n{statement}\n")
    (package / "middle.py").write_text("from . import agent\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    try:
        found = blocking_calls(importlib.import_module("blocking.agent").Agent())
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "blocking"]:
            del sys.modules[name]
    assert [place for place, _ in found] == ["blocking/tools.py:8"]


def test_they_are_warnings(agent: object) -> None:
    result = validate_agent_loop(agent)  # type: ignore[arg-type]
    assert result.valid
    assert {warning.code for warning in result.warnings} == {"BLOCKING_CALL"}
    assert "await asyncio.sleep(...)" in str(result.warnings[0])


def test_an_agent_without_a_source_has_none() -> None:
    assert blocking_calls(3) == []
