"""The agent, from its module to its tools, in files as users have them."""

import time
from pathlib import Path
from textwrap import dedent

import pytest
from support.agent_files import write_agent
from support.doctor import PATIENCE_SECONDS, assert_names, find

from osmosis_ai.rollout.tooling.doctor.examination import CHECKS, examine
from osmosis_ai.rollout.tooling.doctor.types import Finding, Setup, Status

pytestmark = pytest.mark.slow

AGENT_CHECKS = ("agent-import", "agent-loop", "agent-valid", "tool-schemas", "get-tools")

TEMPLATE = """
import os, sys, time
from osmosis_ai.rollout import RolloutAgentLoop

{before}

class Agent(RolloutAgentLoop):
    name = {name!r}

    def get_tools(self, request):
        {tools}

    {run}

agent_loop = Agent()
"""
RUN = "async def run(self, ctx): return ctx.complete([])"
GOOD_TOOL = '{"type": "function", "function": {"name": "add", "description": "Adds."}}'


@pytest.fixture
def agent(folder: Path) -> "AgentFile":
    return AgentFile(folder)


class AgentFile:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(
        self, *, before: str = "", name: str = "agent", tools: str = f"return [{GOOD_TOOL}]", run: str = RUN
    ) -> None:
        """Write ``my_agent.py``."""
        source = TEMPLATE.format(before=dedent(before), name=name, tools=tools, run=run)
        (self._folder / "my_agent.py").write_text(source)


def find_all(module: str) -> dict[str, Finding]:
    """What the checks of agents find; the agent is loaded once."""
    checks = [check for check in CHECKS if check.id in AGENT_CHECKS]
    return examine(Setup(module=module), time_limit_seconds=PATIENCE_SECONDS, checks=checks).findings


def test_a_healthy_one(folder: Path) -> None:
    write_agent(folder)
    assert {finding.status for finding in find_all("user_agent:agent_loop").values()} == {Status.OK}


def test_no_agent_named() -> None:
    for check_id in AGENT_CHECKS:
        finding = find(check_id)
        assert finding.status is Status.NOT_CHECKED
        assert "-m module:attribute" in finding.message


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_package", ("No module named 'no_such_package'", "my_agent.py, line 1", "uv add")),
        ("x = (", ("SyntaxError", "my_agent.py, line 1")),
        ("1 / 0", ("ZeroDivisionError", "my_agent.py, line 1")),
        ("raise SystemExit(3)", ("exits on import",)),
        ("import os; os._exit(0)", ("ended from within", "faulthandler")),
    ],
)
def test_a_module_that_cannot_be_imported(folder: Path, source: str, words: tuple[str, ...]) -> None:
    (folder / "my_agent.py").write_text(source + "\n")
    findings = find_all("my_agent:agent_loop")
    assert_names(findings["agent-import"], Status.PROBLEM, *words)
    assert findings["agent-valid"].status is Status.NOT_CHECKED


@pytest.mark.parametrize("module", ["nowhere:agent_loop", "server.py:agent_loop", "nonsense", ":x"])
def test_a_module_that_is_not_there(module: str) -> None:
    assert_names(find("agent-import", module=module), Status.PROBLEM)


@pytest.mark.parametrize(
    ("attribute", "words"),
    [("agent_lop", ("no attribute 'agent_lop'", "agent_loop")), ("os", ("must be a RolloutAgentLoop",))],
)
def test_an_attribute_that_is_no_agent_loop(agent: AgentFile, attribute: str, words: tuple[str, ...]) -> None:
    agent()
    findings = find_all(f"my_agent:{attribute}")
    assert_names(findings["agent-loop"], Status.PROBLEM, *words)
    assert findings["agent-import"].status is Status.OK
    assert findings["get-tools"].status is Status.NOT_CHECKED


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ({"name": " "}, "EMPTY_NAME"),
        ({"run": "def run(self, ctx): pass"}, "RUN_NOT_ASYNC"),
        ({"tools": "return None"}, "GET_TOOLS_RETURNS_NONE"),
        ({"tools": "raise KeyError('database')"}, "GET_TOOLS_EXCEPTION"),
    ],
)
def test_an_agent_that_is_invalid(agent: AgentFile, source: dict[str, str], word: str) -> None:
    agent(**source)
    assert_names(find("agent-valid", module="my_agent:agent_loop"), Status.PROBLEM, word, "osmosis validate")


@pytest.mark.parametrize(
    ("tools", "word"),
    [
        ('return [{"type": "function"}]', "MISSING_FUNCTION"),
        (f"return [{GOOD_TOOL}, {GOOD_TOOL}]", "DUPLICATE_TOOL_NAME"),
        ('return [{"type": "function", "function": {"name": "f", "parameters": 5}}]', "INVALID_PARAMETERS_TYPE"),
    ],
)
def test_a_tool_schema_that_is_refused(agent: AgentFile, tools: str, word: str) -> None:
    agent(tools=tools)
    findings = find_all("my_agent:agent_loop")
    assert_names(findings["tool-schemas"], Status.PROBLEM, word, "500")
    assert findings["agent-valid"].status is Status.OK


def test_a_tool_schema_that_providers_refuse(agent: AgentFile) -> None:
    agent(tools='return [{"type": "function", "function": {"name": "add numbers", "description": "Adds."}}]')
    assert_names(find("tool-schemas", module="my_agent:agent_loop"), Status.WARNING, "add numbers")


def test_a_slow_get_tools(agent: AgentFile) -> None:
    agent(tools=f"time.sleep(1.1); return [{GOOD_TOOL}]")
    assert_names(find("get-tools", module="my_agent:agent_loop"), Status.WARNING, "get_tools took", "__init__")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "check_id", "status"),
    [
        ({"tools": "time.sleep(600)"}, "get-tools", Status.PROBLEM),
        ({"before": "time.sleep(600)"}, "agent-import", Status.PROBLEM),
    ],
)
def test_one_that_hangs_is_cut_off(agent: AgentFile, source: dict[str, str], check_id: str, status: Status) -> None:
    agent(**source)
    checks = [check for check in CHECKS if check.id in AGENT_CHECKS]
    started = time.monotonic()
    diagnosis = examine(Setup(module="my_agent:agent_loop"), time_limit_seconds=4.0, checks=checks)
    assert time.monotonic() - started < 30.0  # and not 600
    assert_names(diagnosis.findings[check_id], status, "--timeout 30")
    assert diagnosis.findings["agent-valid"].status is Status.NOT_CHECKED


def test_what_the_module_starts_does_not_outlive_the_check(agent: AgentFile, folder: Path) -> None:
    agent(
        before="""
        import subprocess
        child = subprocess.Popen(["sleep", "600"])
        open("child", "w").write(str(child.pid))
        print("noise on stdout", flush=True)
        """
    )
    assert find("agent-valid", module="my_agent:agent_loop").status is Status.OK
    state = Path(f"/proc/{(folder / 'child').read_text()}/stat")
    deadline = time.monotonic() + 60
    while state.exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_secret_in_an_error_is_not_shown(agent: AgentFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PROVIDER_API_KEY", "hunter2-hunter2")
    agent(before="raise ValueError(os.environ['SOME_PROVIDER_API_KEY'])")
    finding = find("agent-import", module="my_agent:agent_loop")
    assert_names(finding, Status.PROBLEM, "ValueError: ***")


@pytest.mark.slow
def test_a_folder_of_mcp_tools() -> None:
    tools = Path(__file__).parents[3] / "fixtures" / "mcp_calculator"
    assert find("tool-schemas", mcp=str(tools)).status is Status.OK
    assert_names(find("agent-import", mcp="nowhere"), Status.PROBLEM, "nowhere")


@pytest.mark.slow
def test_an_import_has_the_time_it_needs_though_others_have_none(agent: AgentFile) -> None:
    agent(before="time.sleep(1.5)")
    checks = [check for check in CHECKS if check.id in AGENT_CHECKS]
    module = Setup(module="my_agent:agent_loop")
    found = examine(module, time_limit_seconds=0.2, agent_time_limit_seconds=PATIENCE_SECONDS, checks=checks).findings
    assert {finding.status for finding in found.values()} == {Status.OK}
