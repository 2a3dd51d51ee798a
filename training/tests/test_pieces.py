"""The parts that need no model."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from osmosis_ai.rollout import OsmosisLLMClient, RolloutContext, RolloutRequest
from osmosis_ai.rollout.run.data.dataset import DatasetReader
from rewards import compute_reward
from tools import TOOLS
from training import records
from training.chaos import judge
from training.display import curve
from training.grpo import advantages
from training.plots import moving_average
from training.problems import Level, Wordings, held_out_rows, training_rows, write_rows
from training.report import write_report
from training.rollouts import last_tool_result_is
from training.stepwise import FIRST_STEP, LAST_STEP, stepwise_reward
from training.table import table_rows

TOOL_OF = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}


def test_advantages_are_the_reward_against_its_group() -> None:
    weights = advantages([1.0, 0.0, 0.0, 0.0], epsilon=0.01)
    assert weights is not None
    assert sum(weights) == pytest.approx(0)
    assert weights[0] == pytest.approx(0.75 / (0.1875**0.5 + 0.01))
    assert advantages([1.0, 1.0], epsilon=0.01) is None
    assert advantages([1.0], epsilon=0.01) is None


@pytest.mark.parametrize("level", list(Level))
def test_no_problem_is_both_trained_on_and_measured_on(level: Level) -> None:
    trained = {row["expression"] for seed in range(3) for row in training_rows(level, 300, seed)}
    measured = [row for wordings in Wordings for row in held_out_rows(level, 100, wordings)]
    assert not trained & {row["expression"] for row in measured}
    assert len({row["user_prompt"] for row in measured}) == 200
    for row in measured:
        truth = eval(row["expression"], {"__builtins__": {}})  # noqa: S307 - digits and operators of our own making
        assert Decimal(row["ground_truth"]) == pytest.approx(Decimal(str(truth)))


@pytest.mark.parametrize("level", list(Level))
async def test_the_agents_tools_and_reward_agree_with_the_ground_truth(level: Level) -> None:
    rows = [*held_out_rows(level, 50, Wordings.HELD_OUT), *training_rows(level, 200, seed=3)]
    ctx = no_rollout()
    for row in rows:
        a, *rest = row["expression"].replace("(", "").replace(")", "").split()
        for operation, b in zip(rest[::2], rest[1::2], strict=True):
            function = {"name": TOOL_OF[operation], "arguments": f'{{"a": {a}, "b": {b}}}'}
            [result] = await TOOLS.answer(ctx, [{"id": "c", "type": "function", "function": function}])
            a = result["content"]
        assert last_tool_result_is([result], row["ground_truth"])
        assert compute_reward(f"#### {a}", row["ground_truth"]) == 1


def no_rollout() -> RolloutContext:
    """A context for tools, which make no chat call."""
    request = RolloutRequest(rollout_id="none", server_url="http://none", messages=[], completion_params={})
    return RolloutContext(request=request, tools=[], llm=OsmosisLLMClient("http://none", "none"))


def test_the_datasets_are_read_as_the_projects_own(tmp_path: Path) -> None:
    rows = training_rows(Level.ONE_STEP, 20, seed=1)
    write_rows(rows, tmp_path / "rows.jsonl")
    reader = DatasetReader(str(tmp_path / "rows.jsonl"))
    assert reader.check().error() is None
    assert [row["user_prompt"] for row in reader.iter_rows()] == [row["user_prompt"] for row in rows]


@pytest.mark.parametrize(
    ("results", "truth", "is_right"),
    [(["8"], "8", True), (["8.0"], "8", True), (["7", "8"], "8", True), (["8", "7"], "8", False), ([], "8", False)],
)
def test_the_last_tool_result_is_compared_as_a_number(results: list[str], truth: str, is_right: bool) -> None:
    messages = [{"role": "tool", "content": result} for result in results]
    assert last_tool_result_is([*messages, {"role": "assistant", "content": "#### 8"}], truth) is is_right


@pytest.mark.parametrize(
    ("reward", "results", "earned"),
    [
        (1.0, [], 1.0),
        (0.0, ["28", "168"], LAST_STEP),
        (0.0, ["28"], FIRST_STEP),
        (0.0, ["28.0", "-15"], FIRST_STEP),
        (0.0, ["Error: no such tool", "NaN"], 0.0),
        (0.0, [], 0.0),
        (None, ["28"], None),
    ],
)
def test_a_step_on_the_way_earns_a_part(reward: float | None, results: list[str], earned: float | None) -> None:
    messages = [{"role": "tool", "content": result} for result in results]
    row = {"expression": "(71 - 43) * 6", "ground_truth": "168"}
    assert stepwise_reward(reward, messages, row) == earned


def test_curves_and_averages() -> None:
    assert curve([0.0, 0.5, 1.0]) == "▁▅█"
    assert moving_average([1.0, 0.0, 0.5], window=2) == [1.0, 0.5, 0.25]


def test_what_a_model_wrote_is_text_in_the_report(tmp_path: Path) -> None:
    said = {"role": "assistant", "content": "<script>alert(1)</script>"}
    one = {"rollout_id": "<b>", "ground_truth": "1", "reward": 0.0, "tool_right": False, "messages": [said]}
    summary = {"reward": 0.0, "tool_right": 0.0, "disputed": 0, "rewarded": 1, "sampled_tokens": 3.0}
    evaluation = {"held-out (sampled)": summary | {"transcripts": [one], "rollouts": 1}}
    (tmp_path / records.EVALUATIONS).write_text(json.dumps({"before": evaluation, "after": evaluation}))
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert table_rows(tmp_path) == []


def attempt(name: str, started: float, ended: float, outcome: str, reward: float | None) -> dict[str, Any]:
    return {"rollout_id": name, "started_at": started, "ended_at": ended, "outcome": outcome, "reward": reward}


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def a_run_with_two_kills(folder: Path, victims: list[dict[str, Any]]) -> list[bool]:
    """The verdicts on a run that was killed at 10 and at 30 seconds, each time for one second."""
    write_lines(
        folder / records.SERVER,
        [
            {"event": "started", "pid": 1},
            *({"event": "restarted", "died_at": at, "ready_at": at + 1.0, "pid": 2} for at in (10.0, 30.0)),
        ],
    )
    write_lines(folder / records.STEPS, [{"rewarded": 8, "rollouts": 8}] * 7)
    later = attempt("later", 40, 45, "COMPLETED", 1.0)
    write_lines(folder / records.ROLLOUTS, [*victims, attempt("second", 29, 31.5, "ERROR", None), later])
    return [verdict.holds for verdict in judge(folder, [10.0, 30.0])]


def test_the_judge_of_a_killed_run_finds_what_is_wrong(tmp_path: Path) -> None:
    assert a_run_with_two_kills(tmp_path, [attempt("a", 9, 11.5, "ERROR", None)]) == [True] * 5
    waited_too_long = [attempt("a", 9, 60, "TIMED_OUT", None)]
    assert a_run_with_two_kills(tmp_path, waited_too_long) == [True, True, False, True, True]
    reward_of_nothing = [attempt("a", 9, 11.5, "ERROR", 0.0)]
    assert a_run_with_two_kills(tmp_path, reward_of_nothing) == [True, True, True, False, True]
    assert a_run_with_two_kills(tmp_path, []) == [False, True, True, True, True]
