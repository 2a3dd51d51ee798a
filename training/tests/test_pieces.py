"""The parts that need no model."""

import io
import json
import re
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
import torch
from rich.console import Console

from osmosis_ai.rollout import OsmosisLLMClient, RolloutContext, RolloutRequest
from osmosis_ai.rollout.run.data.dataset import DatasetReader
from rewards import compute_reward
from tools import TOOLS
from training import records
from training.display import Display, curve
from training.plots import moving_average
from training.problems import Level, Wordings, held_out_rows, training_rows, write_rows
from training.report import write_report
from training.rollouts import last_tool_result_is
from training.weights import NATIVE_BF16, WEIGHTS_FILE, NumberType, number_type, save_model

TOOL_OF = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}


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


def test_curves_and_averages() -> None:
    assert curve([0.0, 0.5, 1.0]) == "▁▅█"
    assert moving_average([1.0, 0.0, 0.5], window=2) == [1.0, 0.5, 0.25]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process grows beyond a thousand bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_model_is_one_sentence_and_keeps_what_was_there(tmp_path: Path) -> None:
    like, folder = tmp_path / "like", tmp_path / "model"
    like.mkdir()
    save_model({"small": torch.zeros(1)}, like, folder)
    before = (folder / WEIGHTS_FILE).read_bytes()
    with (
        full_disk(),
        pytest.raises(OSError, match=r"^Cannot write the model to .*model: .*another place with --output.$"),
    ):
        save_model({"large": torch.zeros(100_000)}, like, folder)
    assert [file.name for file in folder.iterdir()] == [WEIGHTS_FILE]
    assert (folder / WEIGHTS_FILE).read_bytes() == before


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


@pytest.mark.parametrize(
    ("features", "asked", "chosen"),
    [
        (["avx512_bf16"], NumberType.AUTO, torch.bfloat16),
        (["amx_bf16"], NumberType.AUTO, torch.bfloat16),
        (["avx2", "avx512_f"], NumberType.AUTO, torch.float32),
        (["avx2"], NumberType.BF16, torch.bfloat16),
        (["avx512_bf16"], NumberType.FP32, torch.float32),
    ],
)
def test_the_number_type_is_one_that_the_processor_has(
    monkeypatch: pytest.MonkeyPatch, features: list[str], asked: NumberType, chosen: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(features, True) | {"cpu_name": "One"})
    dtype, why = number_type(asked, torch.device("cpu"))
    assert dtype is chosen
    assert ("One" in why) is (asked is NumberType.AUTO)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="There is nothing to compare with.")
def test_this_processor_has_what_linux_says_of_it() -> None:
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if re.match("flags|Features", line))
    has_bf16 = not {*NATIVE_BF16}.isdisjoint(flags.split())
    assert number_type(NumberType.AUTO, torch.device("cpu"))[0] is (torch.bfloat16 if has_bf16 else torch.float32)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_an_evaluation_says_how_far_it_is(is_terminal: bool) -> None:
    shown = io.StringIO()
    with Display(Console(file=shown, force_terminal=is_terminal, width=100)) as display:
        display.begin_evaluation("before", "held-out", "greedy", 20)
        for _ in range(6):
            display.count(Counter(COMPLETED=1))
    assert ("6 of 20" in shown.getvalue()) is True
    assert is_terminal or "held-out, greedy: 2 of 20" in shown.getvalue()
