"""Mistakes that people make with their first agent: each is told once, with what, where and what to do."""

import gc
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from osmosis_ai.cli import main

AGENT = '''\
import asyncio, json, sqlite3, time
from contextlib import closing
from osmosis_ai.rollout import RolloutAgentLoop, RolloutResult, Toolbox, ToolExecutionError, execute_tool_calls

CONNECTION = sqlite3.connect(":memory:")
{module}

def count(table: str) -> int:
    """Count the rows of a table."""
    {tool}

TOOLS = Toolbox(count)

class Agent(RolloutAgentLoop):
    name = "counter"

    def get_tools(self, request):
        {get_tools}

    async def run(self, ctx):
        messages = list(ctx.request.messages)
        {run}
        reply = await ctx.chat(messages, **ctx.request.completion_params)
        messages.append(reply.message)
        messages += await TOOLS.answer(ctx, reply.tool_calls)
        {end}

agent_loop = Agent()
'''
DEFAULTS = {
    "module": "",
    "tool": 'return {"employees": 4}[table]',
    "get_tools": "return TOOLS.schemas",
    "run": "",
    "end": "return ctx.complete(messages, reward=1.0)",
}
POLICY = """\
from osmosis_ai.rollout.trainer import tool_call

def reply(messages):
    return tool_call("count", table="employees")

def failing(messages):
    return {}["employees"]

def silent(messages):
    pass
"""
ROW = {"system_prompt": "Count.", "user_prompt": "How many?", "ground_truth": "4"}
RUN_LINE, TOOL_LINE = 22, 10
AT_RUN, AT_TOOL = f"user_agent.py:{RUN_LINE}", f"user_agent.py:{TOOL_LINE}"
TEST = ("test", "-m", "user_agent:agent_loop", "-d", "rows.jsonl", "--policy", "user_policy:reply")
VALIDATE = ("validate", "-m", "user_agent:agent_loop")


WARNED_OF = ("messages changed in place", "a call that blocks, and a trainer")


@dataclass(frozen=True)
class Mistake:
    """What is written into the agent, what is run, and what must be told: what, where, what to do."""

    name: str
    written: dict[str, str]
    told: tuple[str, ...]
    command: tuple[str, ...] = TEST
    rows: str | None = None


MISTAKES = [
    Mistake(
        "a forgotten await",
        {"run": "reply = ctx.chat(messages); reply.message"},
        ("'coroutine' object has no attribute 'message'", AT_RUN, "an await is missing"),
    ),
    Mistake(
        "an await too many",
        {"run": "await json.dumps(messages)"},
        ("can't be used in 'await' expression", AT_RUN, "leave the await out"),
    ),
    Mistake("a key that is not there", {"tool": 'return {}["employees"]'}, ("KeyError: 'employees'", AT_TOOL)),
    Mistake("a bug in run", {"run": "1 / 0"}, ("division by zero", AT_RUN)),
    Mistake(
        "a dict in place of a result",
        {"end": 'return {"reward": 1.0}'},
        ("returned dict, not a RolloutResult", "user_agent.py:20", "return ctx.complete(messages, reward=...)"),
    ),
    Mistake(
        "nothing in place of a result",
        {"end": "pass"},
        ("returned NoneType, not a RolloutResult", "user_agent.py:20", "return ctx.complete(messages, reward=...)"),
    ),
    Mistake(
        "an executor that returns no message",
        {"module": "async def execute(call): return 4", "run": 'await execute_tool_calls([{"id": "1"}], execute)'},
        ("must return a tool message", "user_agent.py:6", "return create_tool_result(tool_call_id, result)"),
    ),
    Mistake(
        "an executor that is not async",
        {"module": "def execute(call): return {}", "run": 'await execute_tool_calls([{"id": "1"}], execute)'},
        ("must be async", AT_RUN, "declare it with 'async def'"),
    ),
    Mistake(
        "a reply taken for a message",
        {"run": "reply = await ctx.chat(messages); reply['content']"},
        ("'CompletionsResult' object is not subscriptable", AT_RUN, "append reply.message"),
    ),
    Mistake(
        "messages changed in place",
        {"end": "messages[0]['content'] = 'x'; return ctx.complete(messages, reward=1.0)"},
        ("an agent changed or dropped what was said before: Row 0", "messages[0] was changed"),
        ("trainer", *TEST[1:]),
    ),
    Mistake(
        "a connection of another thread",
        {"tool": 'return CONNECTION.execute("SELECT 1")'},
        ("SQLite objects created in a thread", AT_TOOL, "check_same_thread=False"),
    ),
    Mistake(
        "a connection that would stay open",
        {"run": "await ctx.enter(CONNECTION)"},
        ("commits, and stays open", AT_RUN, "ctx.enter(contextlib.closing(connection))"),
    ),
    Mistake(
        "asyncio.run within the agent",
        {"run": "asyncio.run(asyncio.sleep(0))"},
        ("cannot be called from a running event loop", AT_RUN, "await the coroutine"),
    ),
    Mistake(
        "reading the model's JSON by hand",
        {"run": "json.loads('{')"},
        ("Expecting property name", AT_RUN, "a Toolbox reads arguments"),
    ),
    Mistake(
        "a call that blocks",
        {"run": "time.sleep(0)"},
        ("time.sleep blocks every rollout", AT_RUN, "await asyncio.sleep(...)"),
        VALIDATE,
    ),
    Mistake(
        "get_tools as a coroutine",
        {"get_tools": "pass\n    async def get_tools(self, request): return []"},
        ("get_tools must be a plain function", "get_tools", "define it with 'def', not 'async def'"),
        VALIDATE,
    ),
    Mistake(
        "get_tools that fails",
        {"get_tools": "return TOOLS.schema"},
        ("get_tools raised AttributeError", "user_agent.py:18"),
        VALIDATE,
    ),
    Mistake(
        "get_tools that returns nothing",
        {"get_tools": "TOOLS.schemas"},
        ("get_tools returned None", "get_tools", "return a list"),
        VALIDATE,
    ),
    Mistake(
        "get_tools that returns the toolbox",
        {"get_tools": "return TOOLS"},
        ("get_tools must return a list, got Toolbox", "user_agent.py:17", "return its schemas"),
    ),
    Mistake(
        "an agent that a trainer's server refuses",
        {"get_tools": "return TOOLS"},
        ("get_tools must return a list, got Toolbox", "user_agent.py:17", "return its schemas"),
        ("trainer", *TEST[1:]),
    ),
    Mistake(
        "a forgotten await in a tool",
        {"tool": "return later()", "module": "async def four(): return 4\nasync def later(): return four()"},
        ("'coroutine' object", "user_agent.py:9 in count", "an await is missing"),
    ),
    Mistake(
        "a column that the dataset does not have",
        {"run": "ctx.request.metadata['answer']"},
        ("KeyError: 'answer'", AT_RUN, "the row has no such column"),
    ),
    Mistake(
        "a call that blocks, and a trainer",
        {"run": "time.sleep(0)"},
        ("time.sleep blocks every rollout", AT_RUN, "await asyncio.sleep(...)"),
        ("trainer", *TEST[1:]),
    ),
    Mistake(
        "a tool without types",
        {"module": "def untyped(table): 'Count.'\nToolbox(untyped)"},
        ("Parameter table of tool untyped needs an annotation", "(user_agent.py, line 7)", "write its type, as in"),
        VALIDATE,
    ),
    Mistake(
        "an agent without a name",
        {
            "module": "class Nameless(RolloutAgentLoop):\n"
            "    def get_tools(self, r): ...\n    async def run(self, c): ..."
        },
        ("must define a 'name' class attribute", "(user_agent.py, line 6)"),
        VALIDATE,
    ),
    Mistake(
        "a module mistyped",
        {},
        ("No module named 'usr_agent'", "did you mean 'user_agent'?"),
        ("validate", "-m", "usr_agent:agent_loop"),
    ),
    Mistake(
        "an attribute mistyped",
        {},
        ("(user_agent.py) has no attribute 'agent_lop'", "did you mean 'agent_loop'?", "Available agent loops: Agent"),
        ("validate", "-m", "user_agent:agent_lop"),
    ),
    Mistake(
        "a file in place of a module",
        {},
        ("No module named 'user_agent.py'", "write 'user_agent', without the suffix"),
        ("validate", "-m", "user_agent.py:agent_loop"),
    ),
    Mistake(
        "a relative import",
        {"module": "from .tools import x"},
        ("relative import", "(user_agent.py, line 6)", "import without the dot"),
        VALIDATE,
    ),
    Mistake(
        "a script that fails",
        {},
        ("The policy failed: KeyError: 'employees' (user_policy.py:7 in failing)",),
        (*TEST[:-1], "user_policy:failing"),
    ),
    Mistake(
        "a script that says nothing",
        {},
        ("reply must give a text, a message or tool_call(...)", "it gave nothing"),
        (*TEST[:-1], "user_policy:silent"),
    ),
    Mistake(
        "the built-in script for tools it does not know",
        {},
        ("knows none of the tools count", "--policy policy:reply"),
        ("trainer", *TEST[1:5]),
    ),
    Mistake(
        "a column that is not there",
        {},
        ("say which they are with --columns", "ground_truth", "rows.jsonl"),
        rows='{"system_prompt": "s", "user_prompt": "u"}',
    ),
    Mistake(
        "rows that are no JSON", {}, ("Invalid JSON at line 1", "line 1 of rows.jsonl"), rows="{'user_prompt': 'u'}"
    ),
    Mistake(
        "a reward that is no number",
        {"end": 'return ctx.complete(messages, reward="good")'},
        ("reward must be a finite number, got 'good'", "user_agent.py:20"),
        ("trainer", *TEST[1:]),
    ),
    Mistake(
        "a reward that is not awaited",
        {"module": "async def score(): return 1.0", "end": "return ctx.complete(messages, reward=score())"},
        ("reward must be a finite number, got a coroutine", "user_agent.py:20", "an await is missing"),
    ),
    Mistake(
        "a run with an argument more",
        {
            "module": "class Wider: pass",
            "end": "return ctx.complete(messages)\n\n    async def run(self, ctx, row): pass",
        },
        ("missing 1 required positional argument: 'row'", "user_agent.py:28", "'async def run(self, ctx)'"),
    ),
    Mistake(
        "a run that yields",
        {"end": "yield ctx.complete(messages, reward=1.0)"},
        ("async_generator can't be used in 'await'", "user_agent.py:20", "without yield"),
    ),
    Mistake(
        "one message for the conversation",
        {"run": "await ctx.chat(messages[-1])"},
        ("ctx.chat takes the whole conversation, a list of messages, got dict", AT_RUN),
    ),
    Mistake(
        "the reply for its message",
        {"end": "return ctx.complete([*ctx.request.messages, reply], reward=1.0)"},
        ("final_messages[2] must be a message object, got CompletionsResult", "user_agent.py:20", "reply.message"),
    ),
    Mistake(
        "a text for the messages",
        {"end": "return ctx.complete('done', reward=1.0)"},
        ("final_messages[0] must be a message object, got str", "user_agent.py:20", "give the whole conversation"),
    ),
    Mistake("an exit in run", {"run": "raise SystemExit(3)"}, ("SystemExit: 3", AT_RUN)),
    Mistake(
        "a tool as a flat dict",
        {"get_tools": 'return [{"name": "count", "description": "Counts.", "parameters": {}}]'},
        ("missing 'function' field", "user_agent.py:17 in Agent.get_tools", "return the schemas of a Toolbox"),
    ),
    Mistake(
        "a tool as a flat dict, served",
        {"get_tools": 'return [{"name": "count", "description": "Counts.", "parameters": {}}]'},
        ("The tool has no function.", "user_agent.py:17 in Agent.get_tools"),
        ("trainer", *TEST[1:]),
    ),
    Mistake(
        "a run that is no coroutine, served",
        {"end": "yield ctx.complete(messages, reward=1.0)"},
        ("run must be a coroutine function", "user_agent.py:20 in Agent.run", "without yield"),
        ("trainer", *TEST[1:]),
    ),
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "user_policy.py").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in ("user_agent", "user_policy"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(
            mistake,
            id=mistake.name.replace(" ", "-"),
            marks=[pytest.mark.slow] if mistake.command[0] == "trainer" else [],  # it starts a server
        )
        for mistake in MISTAKES
    ],
)
@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_mistake_is_told_with_what_where_and_what_to_do(
    project: Path, mistake: Mistake, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "user_agent.py").write_text(AGENT.format(**{**DEFAULTS, **mistake.written}))
    (project / "rows.jsonl").write_text(f"{mistake.rows or json.dumps(ROW)}\n" * 2)
    code = main(list(mistake.command))
    gc.collect(1)  # a coroutine that nobody awaits complains where it is collected: here, where that is expected
    captured = capsys.readouterr()
    said = " ".join(f"{captured.out} {captured.err}".split())
    missing = [words for words in mistake.told if words not in said]
    assert not missing, said
    if mistake.command[0] != "validate" and mistake.name not in WARNED_OF:
        assert code != 0
    assert said.count(mistake.told[0]) <= (2 if mistake.rows else 1), "once is enough, or once a row of the file"
    assert "Traceback" not in said
    assert not re.search(r"/site-packages/|osmosis_ai/rollout/", said)


def test_there_are_at_least_25_of_them() -> None:
    assert len({mistake.name for mistake in MISTAKES}) >= 25


@pytest.mark.slow
def test_what_a_tool_prints_is_seen_and_the_servers_log_can_be_kept(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (project / "user_agent.py").write_text(AGENT.format(**{**DEFAULTS, "tool": 'print("counting", table); return 4'}))
    (project / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    assert main(["trainer", *TEST[1:], "--server-log", "server.log", "--json"]) == 0
    out, err = capfd.readouterr()
    assert "counting employees\n" in err
    assert json.loads(out)["summary"]["completed"] == 1
    assert "RolloutServer" not in err, "nobody reads the banner of such a server"
    log = (project / "server.log").read_text()
    assert "counting employees\n" in log
    assert "Application startup complete" in log
    assert (project / "server.log").stat().st_mode & 0o077 == 0
