"""What an agent did that it should not, and yet ended: told alike by trainer, test and eval, and in their results."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.processes import own_environment

pytestmark = pytest.mark.slow

AGENT = """
import time

from osmosis_ai.rollout import RolloutAgentLoop
from osmosis_ai.rollout.trainer import ScriptedPolicy


class Sloppy(RolloutAgentLoop):
    name = "sloppy"

    def get_tools(self, request):
        return []

    async def run(self, ctx):
        messages = list(ctx.request.messages)
        sampling = {} if "ignores" in ctx.request.metadata else ctx.request.completion_params
        reply = await ctx.chat(messages, **sampling)
        if "rewrites" in ctx.request.metadata:
            messages.append({**reply.message, "content": "cleaned up"})
        if "blocks" in ctx.request.metadata:
            time.sleep(5)  # HERE
        return ctx.complete(messages, reward=1.0)


def always(solution_str, ground_truth, extra_info):
    return 1.0


agent_loop = Sloppy()
policy = ScriptedPolicy(["hello"])
"""
HERE = next(number for number, line in enumerate(AGENT.splitlines(), start=1) if "# HERE" in line)
REWRITE = "messages[1], a reply of the model, was changed (content was 'hello' and is 'cleaned up') after chat call 1"
PLACE = f"agent.py:{HERE} in Sloppy.run"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("agent.py").write_text(AGENT)
    rows: list[dict[str, Any]] = [{}, {"rewrites": 1}, {"blocks": 1}, {"ignores": 1}]
    Path("rows.jsonl").write_text(
        "".join(json.dumps({"user_prompt": "?", "ground_truth": "-", **row}) + "\n" for row in rows)
    )


def run(command: str, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "osmosis_ai", command, "-m", "agent:agent_loop", "-d", "rows.jsonl", *arguments],
        env=own_environment(COLUMNS="300"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def runs_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    rows = document.get("rows")
    return [{**row["runs"][0], **row} for row in rows] if rows else document["results"]


@pytest.mark.parametrize("command", ["trainer", "test", "eval"])
def test_a_rewritten_reply_a_blocked_loop_and_sampling_that_is_not_the_requests(command: str) -> None:
    more = ("--eval-fn", "agent:always") if command == "eval" else ()
    code, shown = run(command, "--policy", "agent:policy", "-o", "results.json", *more)
    assert code == 0
    assert "Warning: 1 x an agent changed or dropped what was said before:" in shown
    assert f"Row 1, rollout {'trainer-' if command == 'trainer' else f'{command}-1'}" in shown
    assert REWRITE in shown
    assert f"Warning: 1 x the event loop was blocked at {PLACE}, for up to " in shown
    assert "use asyncio.to_thread. (row 2)" in shown
    ignored = "a chat call ignored the request's temperature: pass **ctx.request.completion_params. (row 3)"
    assert f"Warning: 1 x {ignored}" in shown
    document = json.loads(Path("results.json").read_bytes())
    assert document["summary"]["rewrote_messages"] == 1
    [blocks] = document["summary"]["event_loop_blocked"]
    assert (blocks["place"], blocks["count"], blocks["rows"]) == (PLACE, 1, [2])
    runs = {run["row_index"]: run for run in runs_of(document)}
    assert [str(runs[row].get("rewritten") or "").startswith(REWRITE) for row in range(4)] == [
        False,
        True,
        False,
        False,
    ]
    assert [bool(runs[row].get("event_loop_blocked")) for row in range(4)] == [False, False, True, False]
    assert [runs[row].get("sampling_ignored") or [] for row in range(4)] == [[], [], [], ["temperature"]]
    [block] = runs[2]["event_loop_blocked"]
    assert block["place"] == PLACE
    assert block["seconds"] >= 1.0


@pytest.mark.parametrize("command", ["test", "eval"])
def test_an_agent_that_blocks_is_ended_at_the_time_limit_of_a_run(command: str) -> None:
    Path("agent.py").write_text(AGENT.replace("time.sleep(5)", "time.sleep(60)"))
    more = ("--eval-fn", "agent:always") if command == "eval" else ()
    code, shown = run(command, "--policy", "agent:policy", "--timeout", "2", *more)
    assert code == 1
    assert f"time limit of 2 s; it blocked the event loop at {PLACE}: use asyncio.to_thread" in shown
