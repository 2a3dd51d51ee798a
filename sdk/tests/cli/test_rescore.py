import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from osmosis_ai.cli import main

REWARDS = """
from osmosis_ai import osmosis_reward

@osmosis_reward
def lenient(solution_str: str, ground_truth: str, extra_info: dict = None) -> float:
    return 1.0 if ground_truth in solution_str else 0.0

async def later(solution_str, ground_truth):
    return 0.5

def crash(solution_str):
    raise ValueError("no")

number = 3
"""


@dataclass(frozen=True)
class Ended:
    """What a finished command left."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


def result(row_index: int, answer: str, reward: float | None, **fields: Any) -> dict[str, Any]:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": f"question {row_index}"},
        {"role": "assistant", "content": answer},
    ]
    entry = {"row_index": row_index, "repeat": 0, "rollout_id": f"r-{row_index}", "status": "COMPLETED"}
    return {**entry, "reward": reward, "final_messages": messages, **fields}


@pytest.fixture
def project(working_directory: Path) -> Path:
    """Results of a trainer, on three rows of which one did not complete."""
    rows = [{"system_prompt": "s", "user_prompt": f"question {n}", "ground_truth": str(n)} for n in range(3)]
    (working_directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = [result(0, "it is 0.", 0.0), result(1, "#### 1", 1.0), result(2, "", None, status="ERROR")]
    document = {"summary": {}, "settings": {"dataset": "rows.jsonl"}, "results": results}
    (working_directory / "results.json").write_text(json.dumps(document))
    (working_directory / "user_rewards.py").write_text(REWARDS)
    return working_directory


@pytest.fixture
def rescore(project: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``osmosis rescore``."""

    def run(*given: str, fn: str = "user_rewards:lenient", source: str = "results.json") -> Ended:
        return Ended(main(["rescore", "-m", fn, source, *given]), *capsys.readouterr())

    return run


def test_it_shows_what_changed_and_what_could_not_be_done(rescore: Command) -> None:
    ended = rescore()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "Runs: 3, rescored: 2",
        "  1 cannot be rescored",
        "    1 x it did not complete, so it has no reward",
        "Mean reward: 0.500 before, 1.000 after (+0.500, 2 runs)",
        "Changed: 1 (1 now pass, 0 now fail; 0 gained a reward, 0 lost it)",
        "  row 0, r-0: 0 -> 1",
    ]


def test_json_has_the_summary_and_what_changed(rescore: Command) -> None:
    document = json.loads(rescore("--json", fn="user_rewards:later").out)
    assert document["summary"]["mean_reward"] == 0.5
    changed = [run for run in document["results"] if run["changed"]]
    assert [(run["row_index"], run["reward_before"], run["reward"]) for run in changed] == [
        (0, 0.0, 0.5),
        (1, 1.0, 0.5),
    ]


def test_the_file_has_every_run(rescore: Command, project: Path) -> None:
    assert rescore("-o", "out/again.json", "-q") == Ended(0, "", "")
    document = json.loads((project / "out" / "again.json").read_text())
    assert [run["verdict"] for run in document["results"]] == ["rescored", "rescored", "not_rescorable"]
    assert document["config"]["module"] == "user_rewards:lenient"
    assert [path.name for path in (project / "out").iterdir()] == ["again.json"]


def test_a_dataset_may_be_named(rescore: Command, project: Path) -> None:
    (project / "rows.jsonl").rename(project / "moved.jsonl")
    ended = rescore()
    assert ended.code == 1
    assert "2 x its ground truth was not saved; name the dataset with -d" in ended.out
    assert rescore("-d", "moved.jsonl").code == 0


def test_a_dataset_that_was_changed_since_is_noticed(rescore: Command, project: Path) -> None:
    lines = (project / "rows.jsonl").read_text().splitlines()
    (project / "rows.jsonl").write_text("\n".join(reversed(lines)))
    ended = rescore()
    assert "the dataset's row of its number has another prompt" in ended.out
    assert "rescored: 1" in ended.out


@pytest.mark.slow
def test_ten_thousand_runs_are_rescored(rescore: Command, project: Path) -> None:
    lines = (json.dumps(result(0, f"#### {n}", 0.0, ground_truth=str(n))) + "\n" for n in range(10_000))
    (project / "many.jsonl").write_text("".join(lines))
    ended = rescore(source="many.jsonl")
    assert "Runs: 10000, rescored: 10000" in ended.out
    assert "Changed: 10000 (10000 now pass, 0 now fail" in ended.out
    assert "9980 more are not shown" in ended.out


def test_a_function_that_fails_is_told_and_is_no_zero(rescore: Command) -> None:
    ended = rescore(fn="user_rewards:crash")
    assert ended.code == 1
    assert "  2 made the function fail\n    2 x ValueError: no\n" in ended.out
    assert "Changed: 0" in ended.out


@pytest.mark.parametrize(
    ("given", "code", "sentence"),
    [
        ({"source": "gone"}, 2, "gone does not exist"),
        ({"source": "user_rewards.py"}, 1, "user_rewards.py is not JSON"),
        ({"fn": "user_rewards:gone"}, 1, "user_rewards:gone"),
        ({"fn": "user_rewards:number"}, 1, "not callable"),
        ({"fn": "user_rewards"}, 2, "user_rewards"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(rescore: Command, given: dict[str, str], code: int, sentence: str) -> None:
    ended = rescore(**given)
    assert (ended.code, ended.out) == (code, "")
    assert (ended.err.startswith("Error: "), ended.err.count("\n")) == (True, 1)
    assert sentence in ended.err


def test_a_folder_of_traces_with_summaries_says_so(rescore: Command, project: Path) -> None:
    (project / "traces").mkdir()
    event = {"event": "llm_response", "rollout_id": "r", "message_summary": {"role": "assistant", "content": "x"}}
    (project / "traces" / "r.jsonl").write_text(json.dumps(event) + "\n")
    ended = rescore(source="traces")
    assert ended.code == 1
    assert "1 x its trace holds only summaries of messages" in ended.out


def test_columns_are_those_that_the_results_say_or_the_command_line(rescore: Command, project: Path) -> None:
    named = "user_prompt=task,ground_truth=gold"
    rows = [{"system_prompt": "s", "task": f"question {n}", "gold": str(n)} for n in range(3)]
    (project / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = rescore("-d", "other.jsonl")
    assert (ended.code, ended.err.count("Missing required columns")) == (1, 1)
    assert rescore("-d", "other.jsonl", "--columns", "task").code == 2
    document = json.loads(rescore("-d", "other.jsonl", "--columns", named, "--json").out)
    assert (document["summary"]["rescored"], document["config"]["columns"]) == (2, named)
    saved = json.loads((project / "results.json").read_text())
    for settings in (
        {"dataset": "other.jsonl", "columns": named},
        {"dataset": {"path": "other.jsonl", "columns": named}},
    ):
        (project / "results.json").write_text(json.dumps({**saved, "settings": settings}))
        assert rescore().out.startswith("Runs: 3, rescored: 2")
