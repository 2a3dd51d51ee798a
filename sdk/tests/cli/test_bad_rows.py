"""One row never ends a run: what cannot be used is told, the others are run, in `test`, `eval` and `trainer` alike."""

import csv
import gzip
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from support.live_server import LiveServer

from osmosis_ai.cli import main
from osmosis_ai.rollout import create_app

AGENT = """
from osmosis_ai.rollout import RolloutAgentLoop


class Agent(RolloutAgentLoop):
    name = "agent"

    def get_tools(self, request):
        return []

    async def run(self, ctx):
        reply = await ctx.chat(ctx.request.messages)
        return ctx.complete([*ctx.request.messages, reply.message], reward=1.0)


agent_loop = Agent()


async def policy(messages):
    return {"role": "assistant", "content": "#### 2"}


def score(solution_str: str, ground_truth: str, extra_info: dict | None = None) -> float:
    return 1.0
"""
GOOD = {"user_prompt": "What is 1 + 1?", "ground_truth": "2"}
BAD = [
    '{"user_prompt": "\\ud800", "ground_truth": "2"}',
    "{broken",
    '{"task": 1}',
    "7",
    '{"user_prompt": "", "ground_truth": 1}',
]
COMMANDS: dict[str, list[str]] = {"test": [], "eval": ["--eval-fn", "agent:score"], "trainer": []}


@pytest.fixture
def project(working_directory: Path) -> Path:
    (working_directory / "agent.py").write_text(AGENT)
    return working_directory


def run(command: str, path: Path, *arguments: str) -> int:
    always = ["-m", "agent:agent_loop", "-d", str(path), "--policy", "agent:policy"]
    return main([command, *always, *COMMANDS[command], *arguments])


def rows_run(document: dict[str, Any]) -> int:
    if "total_rows" in document["summary"]:
        rows: int = document["summary"]["total_rows"]
        return rows
    return len({entry["row_index"] for entry in document.get("results") or document["rollouts"]})


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_others_are_run_and_every_bad_one_is_named(
    command: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project / "rows.jsonl"
    path.write_text("\n".join([json.dumps(GOOD), *BAD, json.dumps(GOOD)]))
    code = run(command, path, "--json")
    printed = capsys.readouterr()
    assert code == 1
    assert rows_run(json.loads(printed.out)) == 2
    for line in range(2, 7):
        assert f"  line {line}: " in printed.err
    assert "What is left to run: 2 rows; --strict runs none then." in printed.err
    assert printed.err.rstrip().splitlines()[-1].startswith("  line 6: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_with_strict_nothing_is_run(command: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "rows.jsonl"
    path.write_text("\n".join([json.dumps(GOOD), *BAD]))
    assert run(command, path, "--strict") == 1
    assert "5 of 6 rows of" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_columns_may_be_named(command: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "rows.jsonl"
    path.write_text(json.dumps({"task": {"text": "What is 1 + 1?"}, "gold": "2"}))
    columns = "user_prompt=task.text,ground_truth=gold"
    assert run(command, path, "--json", "--columns", columns, "-o", str(project / "results.json")) == 0
    assert f'"columns": "{columns}"' in capsys.readouterr().out
    assert f'"columns": "{columns}"' in (project / "results.json").read_text()
    assert run(command, path, "--columns", "prompt=task") == 2
    assert capsys.readouterr().err.startswith("Error: --columns: 'prompt=task' is not TARGET=COLUMN")


TRUTHS = ["2", [7], {"long": "x" * 1000}, "?", 2, True]
SCORED = """
from osmosis_ai.rollout import is_right


def by_is_right(solution_str: str, ground_truth: object) -> float | None:
    right = is_right(solution_str, ground_truth)
    return None if right is None else float(right)


def by_itself(solution_str: str, ground_truth: object) -> float:
    return 1.0
"""


@pytest.fixture
def truths(project: Path) -> Path:
    """Six rows, the ground truths of three of which ``is_right`` cannot compare; an agent that scores by it."""
    path = project / "rows.jsonl"
    path.write_text("".join(json.dumps({**GOOD, "ground_truth": truth}) + "\n" for truth in TRUTHS))
    (project / "scores.py").write_text(SCORED)
    agent = AGENT.replace("reward=1.0", 'reward=scores.by_is_right("#### 2", ctx.request.metadata["ground_truth"])')
    (project / "agent.py").write_text(
        "import scores\n" + agent.replace("return 1.0", "return scores.by_is_right('', 1)")
    )
    return path


def told_of_truths(path: Path, error: str) -> bool:
    return f"3 of 6 rows of {path} cannot be scored" in error and all(
        line in error for line in ("  line 2: [7]\n", '  line 3: {"long": "xxx', '...\n  line 4: "?"\n')
    )


@pytest.mark.parametrize("command", ["test", "eval", pytest.param("trainer", marks=pytest.mark.slow)])
def test_truths_that_cannot_be_compared_are_named_once_and_run(
    command: str, truths: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, truths, "--json") == 0
    printed = capsys.readouterr()
    assert rows_run(json.loads(printed.out)) == 6
    assert told_of_truths(truths, printed.err)
    assert printed.err.count("cannot be scored") == 1
    assert len(printed.err) < 1000


@pytest.mark.parametrize("command", COMMANDS)
def test_with_strict_truths_that_cannot_be_compared_keep_everything_from_running(
    command: str, truths: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, truths, "--strict") == 1
    printed = capsys.readouterr()
    assert told_of_truths(truths, printed.err)
    assert "reward" not in printed.out


def test_of_truths_that_another_reward_reads_nothing_is_said(truths: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = {"test": [], "eval": ["--eval-fn", "scores:by_itself"]}
    (truths.parent / "agent.py").write_text(AGENT)
    for command, arguments in commands.items():
        assert (
            main(
                [
                    command,
                    "-m",
                    "agent:agent_loop",
                    "-d",
                    str(truths),
                    "--policy",
                    "agent:policy",
                    "--strict",
                    *arguments,
                ]
            )
            == 0
        )
        assert capsys.readouterr().err == ""


MESSAGES: list[Any] = [
    [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": "#### 2"}],
    [{"from": "human", "value": "What is 1 + 1?"}, {"from": "gpt", "value": "2"}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}],
    [{"role": 7}],
]
VALUES = (
    st.sampled_from([None, "\ud800", "", " ", 1e400, {"ground_truth": "2"}, *MESSAGES])
    | st.text(max_size=5)
    | st.integers()
    | st.floats()
    | st.lists(st.integers(), max_size=2)
)
COLUMNS = [*GOOD, "system_prompt", "answer", "question", "messages", "conversations", "reward_model", "\ud800"]
RECORDS = st.lists(
    st.just(GOOD) | st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=4),
    min_size=1,
    max_size=6,
)


def written(folder: Path, suffix: str, records: list[dict[str, Any]]) -> Path:
    path = folder / f"rows{suffix}"
    if suffix == ".parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        names = sorted({name for record in records for name in record}) or ["x"]
        columns: dict[str, Any] = {}
        for name in names:
            values = [record.get(name) for record in records]
            try:
                column = arrow.array(values)
            except (arrow.ArrowException, ValueError, OverflowError):  # of several types, or no UTF-8
                column = arrow.array([str(value).replace("\ud800", "x") for value in values])
            columns[name.replace("\ud800", "x")] = column
        parquet.write_table(arrow.table(columns), path)
        return path
    if suffix.startswith((".csv", ".tsv")):
        names = sorted({name for record in records for name in record} | {"level"})
        table = io.StringIO()
        csv.writer(table, delimiter="\t" if suffix == ".tsv" else ";").writerows(
            [names, *([record.get(name) for name in names] for record in records)]
        )
        data = table.getvalue().encode(errors="surrogatepass")
    else:
        data = "".join(json.dumps(record) + "\n" for record in records).encode()
    if suffix.endswith(".zst"):
        with pytest.importorskip("pyarrow").CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(data)
    else:
        path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    return path


@pytest.fixture
def ways(project: Path) -> Iterator[dict[str, Callable[[Path], int]]]:
    """Each command on a file; the trainer's rollout server is started once."""
    sys.path.insert(0, str(project))
    app = create_app(import_module("agent").agent_loop)

    def train(path: Path) -> int:
        return main(["trainer", "--server", server.url, "-d", str(path), "--policy", "agent:policy", "--json"])

    with LiveServer(app) as server:
        yield {**{command: partial(run_json, command) for command in ("test", "eval")}, "trainer": train}


def run_json(command: str, path: Path) -> int:
    return run(command, path, "--json")


def row_numbers(document: dict[str, Any]) -> list[int]:
    return [entry["row_index"] for entry in document.get("results") or document["rows"]]


def rows_named(error: str, suffix: str) -> list[int]:
    """The rows that are told, by their number in the file."""
    told = error.partition("Error: Rows were left out: ")[0]
    lines = told.splitlines()[1:] if "cannot be used:" in told else told.splitlines()[:1]
    named = " ".join(line.partition(": ")[0] for line in lines if "--strict" not in line)
    first = {".jsonl": 1, ".csv": 2, ".tsv": 2, ".parquet": 0}["." + suffix.split(".")[1]]
    return [int(number) - first for number in re.findall(r"(?:[lL]ine|row) (\d+)", named)]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".jsonl.gz", ".csv.zst", ".parquet"])
@pytest.mark.parametrize("command", ["test", "eval", "trainer"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(records=RECORDS)
def test_no_row_is_lost_whatever_the_file_holds(
    command: str,
    suffix: str,
    ways: dict[str, Callable[[Path], int]],
    project: Path,
    capsys: pytest.CaptureFixture[str],
    records: list[dict[str, Any]],
) -> None:
    path = written(project, suffix, records)
    capsys.readouterr()
    code = ways[command](path)
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    document = json.loads(printed.out)
    if "error" in document:
        assert (code, document["exit_code"], printed.err[:7]) == (1, 1, "Error: ")
        return
    numbers, named = row_numbers(document), rows_named(printed.err, suffix)
    assert code == (1 if named else 0)
    if suffix.startswith((".csv", ".tsv")):  # a line without any text is no row, and a text may hold line ends
        assert len(numbers) + len(named) == len(set(numbers)) + len(set(named)) <= len(records)
    else:
        assert sorted([*numbers, *named]) == list(range(len(records)))
