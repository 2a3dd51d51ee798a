"""The rows of a dataset, before anything is run of it."""

import json
from pathlib import Path

from support.doctor import assert_names, find

from osmosis_ai.rollout.tooling.doctor.types import Status

AGENT = "from osmosis_ai.rollout import is_right\nagent_loop = is_right\nother = 1\n"


def written(folder: Path, *truths: object) -> str:
    (folder / "agent.py").write_text(AGENT)
    rows = [{"task": "What is 1 + 1?", "gold": truth} for truth in truths]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "user_prompt=task,ground_truth=gold"


def test_all_rows_can_be_used_and_scored(folder: Path) -> None:
    columns = written(folder, "2", 2)
    assert find("dataset", dataset="rows.jsonl", columns=columns).message == "2 rows."
    found = find("ground-truths", dataset="rows.jsonl", columns=columns, module="agent:agent_loop")
    assert (found.status, found.message) == (Status.OK, "is_right can compare all of them.")


def test_rows_that_cannot_be_used(folder: Path) -> None:
    written(folder, "2")
    assert_names(find("dataset", dataset="rows.jsonl"), Status.PROBLEM, "line 1", "--columns ground_truth=COLUMN")
    assert_names(find("dataset", dataset="gone.jsonl"), Status.PROBLEM, "gone.jsonl")
    assert_names(find("dataset", dataset="rows.jsonl", columns="x"), Status.PROBLEM, "--columns: 'x'")
    (folder / "none.csv").write_text("user_prompt,ground_truth\n")
    assert_names(find("dataset", dataset="none.csv"), Status.PROBLEM, "no rows")


def test_truths_that_cannot_be_compared(folder: Path) -> None:
    columns = written(folder, [2], "2", "?", *[{"a": 1}] * 100)
    found = find("ground-truths", dataset="rows.jsonl", columns=columns, module="agent:agent_loop")
    assert_names(found, Status.WARNING, "102 of 103 rows", "line 1: [2]", 'line 3: "?"')
    assert len(found.message) <= 600


def test_of_an_agent_with_another_reward_nothing_is_said(folder: Path) -> None:
    columns = written(folder, [2])
    assert find("ground-truths", dataset="rows.jsonl", columns=columns, module="agent:other").status is Status.OK
    assert find("ground-truths", dataset="gone.jsonl", module="agent:agent_loop").status is Status.NOT_CHECKED
