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


def test_they_are_warnings(agent: object) -> None:
    result = validate_agent_loop(agent)  # type: ignore[arg-type]
    assert result.valid
    assert {warning.code for warning in result.warnings} == {"BLOCKING_CALL"}
    assert "await asyncio.sleep(...)" in str(result.warnings[0])


def test_an_agent_without_a_source_has_none() -> None:
    assert blocking_calls(3) == []
