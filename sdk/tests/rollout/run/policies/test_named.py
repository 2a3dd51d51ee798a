"""``--policy``: every form a script may have, in trainer, test and eval; what cannot be one; one that fails."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from osmosis_ai.cli import main

AGENT = '''
from osmosis_ai.rollout import RolloutAgentLoop, Toolbox

def count(table: str) -> int:
    """Count the rows of a table."""
    return {"employees": 4}[table]

TOOLS = Toolbox(count)

class Agent(RolloutAgentLoop):
    name = "counter"
    def get_tools(self, request):
        return TOOLS.schemas
    async def run(self, ctx):
        messages = list(ctx.request.messages)
        for _ in range(ctx.request.max_turns):
            reply = await ctx.chat(messages, **ctx.request.completion_params)
            messages.append(reply.message)
            if not reply.tool_calls:
                break
            messages += await TOOLS.answer(ctx, reply.tool_calls)
        return ctx.complete(messages, reward=float(messages[-1]["content"] == "4"))

agent_loop = Agent()

def scored(solution_str, ground_truth, extra_info=None):
    return float(solution_str == ground_truth)
'''
POLICY = """
from osmosis_ai.rollout import CompletionsResult
from osmosis_ai.rollout.trainer import ScriptedPolicy, tool_call

class Scripted(ScriptedPolicy):
    replies = [tool_call("count", table="employees"), "4"]

instance = Scripted()
listed = Scripted.replies

def reply(messages):
    return messages[-1]["content"] if messages[-1]["role"] == "tool" else tool_call("count", table="employees")

class Synchronous:
    def chat_completions(self, messages, **kwargs):
        message = {"role": "assistant", "content": "4"}
        return CompletionsResult(message=message, token_ids=[], logprobs=[], usage={}, finish_reason="stop")

def failing(messages):
    return {}["employees"]

def unknown_table(messages):
    return tool_call("count", table="orders")

def nothing(messages):
    pass

def takes_nothing():
    pass

class NotOne:
    pass

class Unmade(ScriptedPolicy):
    def __init__(self):
        raise OSError("no such file: replies.json")

number = 3
"""
ROWS = 3


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "counting_agent.py").write_text(AGENT)
    (tmp_path / "counting_policy.py").write_text(POLICY)
    row = {"system_prompt": "Count.", "user_prompt": "How many employees?", "ground_truth": "4"}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * ROWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for name in ("counting_agent", "counting_policy"):
        sys.modules.pop(name, None)


def osmosis(command: str, policy: str, *more: str) -> int:
    agent = ["-m", "counting_agent:agent_loop", "-d", "rows.jsonl"]
    return main([command, *agent, "--policy", f"counting_policy:{policy}", *more])


@pytest.mark.parametrize("form", ["Scripted", "instance", "listed", "reply", "Synchronous"])
def test_every_form_plays_a_model_in_test(project: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert osmosis("test", form, "--json") == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert (summary["solved"], summary["total"]) == (ROWS, ROWS)


def test_in_eval(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert osmosis("eval", "Scripted", "--eval-fn", "counting_agent:scored") == 0
    assert "Model: counting_policy:Scripted" in capsys.readouterr().out


def test_eval_needs_a_model_or_a_script(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = ["-m", "counting_agent:agent_loop", "-d", "rows.jsonl", "--eval-fn", "counting_agent:scored"]
    assert main(["eval", *agent]) == 2
    assert "Give --model NAME, or --policy MODULE:ATTR" in capsys.readouterr().err


@pytest.mark.slow
def test_in_the_trainer(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert osmosis("trainer", "Synchronous") == 0
    assert f"Rollouts: {ROWS} of {ROWS} completed" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("command", ["test", "trainer"])
def test_what_a_script_raises_is_told_once_with_file_and_line(
    project: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert osmosis(command, "failing") == 1
    out = capsys.readouterr().out
    told = "The policy failed: KeyError: 'employees' (counting_policy.py:20 in failing)"
    assert f"{ROWS} x" in out
    assert out.count(told) == 1


@pytest.mark.slow
def test_what_an_agents_tool_raises_is_told_once_with_its_frames(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert osmosis("trainer", "unknown_table") == 1
    out = capsys.readouterr().out
    assert f"{ROWS} x tool_error: ToolExecutionError: count failed: KeyError: 'orders'" in out
    assert out.count("    at counting_agent.py:6 in count\n    at counting_agent.py:21 in Agent.run\n") == 1


def test_a_script_that_says_nothing_is_told_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert osmosis("test", "nothing") == 1
    assert "reply must give a text, a message or tool_call(...)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "exit_code", "sentence"),
    [
        ("takes_nothing", 2, "must take the messages, and nothing else: def takes_nothing(messages)."),
        ("NotOne", 2, "NotOne names a class that is none: name a subclass of ScriptedPolicy,"),
        ("number", 2, "names a value of type int: name"),
        ("Unmade", 1, "cannot be made. The policy failed: OSError: no such file: replies.json (counting_policy.py:"),
        ("Script", 1, "did you mean 'Scripted'?"),
    ],
)
@pytest.mark.parametrize("command", ["test", "trainer"])
def test_what_cannot_be_one_is_refused_before_the_first_run(
    project: Path, command: str, name: str, exit_code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert osmosis(command, name) == exit_code
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_the_built_in_script_does_not_pretend_to_know_other_tools(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = ["-m", "counting_agent:agent_loop", "-d", "rows.jsonl"]
    assert main(["trainer", *agent]) == 1
    out = capsys.readouterr().out
    assert out.count("builtin/arithmetic is for calculators, and knows none of the tools count: write a script") == 1
    assert main(["test", *agent, "--model", "builtin/arithmetic"]) == 1
    assert "knows none of the tools count" in capsys.readouterr().out
