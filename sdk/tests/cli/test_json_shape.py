"""`--json` in every command, and one shape of results: the same names in test, eval and trainer, and in their files."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from jsonschema import Draft202012Validator
from support.agent_files import PICKY_AGENT

from osmosis_ai.cli import main
from osmosis_ai.cli.app import app
from osmosis_ai.rollout.run.results.entry import RunEntry
from osmosis_ai.rollout.run.tally import Tally

DOCS = Path(__file__).parents[3] / "docs"
RUN = Draft202012Validator(json.loads((DOCS / "schemas/run.schema.json").read_text(encoding="utf-8")))
PAGE = (DOCS / "json.md").read_text(encoding="utf-8")
ROWS = (
    {"system_prompt": "s", "user_prompt": "What is 1 + 1?", "ground_truth": "2", "level": 3},
    {"system_prompt": "s", "user_prompt": "What is 2 + 1?", "ground_truth": "3", "fail": True},
)


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} ")
        else:
            yield before + name, command


def test_every_command_has_it_and_the_page_says_what_it_prints() -> None:
    all_commands = dict(commands(typer.main.get_command(app)))
    lacking = {name for name, command in all_commands.items() if not any("--json" in p.opts for p in command.params)}
    assert lacking == set()
    told = {name for name in all_commands if re.search(rf"`(osmosis )?{re.escape(name)}`", PAGE)}
    assert all_commands.keys() - told == set()


def test_the_page_names_each_total() -> None:
    totals = PAGE.partition("`summary` has these")[2].partition("## Everything else")[0]
    named = set(re.findall(r"`(\w+)`", totals))
    assert set(Tally(0).totals()) <= named


@pytest.mark.slow
@pytest.mark.parametrize("command", ["test", "eval", "trainer"])
def test_runs_are_told_alike(working_directory: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    (working_directory / "picky_agent.py").write_text(PICKY_AGENT)
    (working_directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    options = ["-m", "picky_agent:agent_loop", "-d", "rows.jsonl", "--model", "builtin/arithmetic", "--n", "2"]
    capsys.readouterr()
    assert main([command, *options, "--json", "-o", "out.json"]) == 1
    document: Any = json.loads(capsys.readouterr().out)
    assert json.loads((working_directory / "out.json").read_text()) == document
    assert {"summary", "config", "results"} <= document.keys()

    results = document["results"]
    assert [(run["row_index"], run["repeat"]) for run in results] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for run in results:
        assert list(RUN.iter_errors(run)) == []
        assert RunEntry(**{name: run[name] for name in RunEntry.__dataclass_fields__})
    good, bad = results[0], results[2]
    assert (good["success"], good["status"], good["error"], good["reward"]) == (True, "COMPLETED", None, 0.5)
    assert (good["reward_components"], good["turns"], good["tool_calls"]) == ({"form": 1.0}, 1, 0)
    assert (good["ground_truth"], good["metadata"], good["finish_reason"]) == ("2", {"level": 3}, "stop")
    assert good["token_usage"]["total_tokens"] > 0
    assert [message["role"] for message in good["messages"]] == ["system", "user", "assistant"]
    assert (bad["success"], bad["status"], bad["reward"]) == (False, "ERROR", None)
    assert "not this one" in bad["error"]
    assert bad["error_kind"]
    assert bad["where"][0].startswith("picky_agent.py:")

    summary = document["summary"]
    assert Tally(0).totals().keys() <= summary.keys()
    counts = {name: summary[name] for name in ("planned", "ended", "resumed", "completed", "failed", "rewarded")}
    assert counts == {"planned": 4, "ended": 4, "resumed": 0, "completed": 2, "failed": 2, "rewarded": 2}
    assert (summary["mean_reward"], summary.get("stop_reason"), summary["interrupted"]) == (0.5, None, False)
    assert summary["total_tokens"] == sum(run["token_usage"].get("total_tokens", 0) for run in results)
    [failure] = summary["errors"]
    assert (failure["count"], failure["rows"]) == (2, [1])

    scorer = "def half(solution_str, ground_truth):\n    return 0.25\n"
    (working_directory / "half_reward.py").write_text(scorer)
    capsys.readouterr()
    assert main(["rescore", "out.json", "-m", "half_reward:half", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [(run["row_index"], run["repeat"], run["success"], run["reward"]) for run in again["results"]] == [
        (0, 0, True, 0.25),
        (0, 1, True, 0.25),
        (1, 0, False, None),
        (1, 1, False, None),
    ]
    assert again["summary"]["mean_reward"] == 0.25
    assert again["config"]["module"] == "half_reward:half"
