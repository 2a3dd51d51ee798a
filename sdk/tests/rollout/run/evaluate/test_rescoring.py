import json
import os
from pathlib import Path
from typing import Any

import pytest

from osmosis_ai.rollout.core.trace.writer import TraceWriter
from osmosis_ai.rollout.run.data.dataset import DatasetReader
from osmosis_ai.rollout.run.evaluate import EvalFnWrapper
from osmosis_ai.rollout.run.evaluate.rescoring import GroundTruths, RescoringReport, RescoringVerdict, rescore
from osmosis_ai.rollout.run.results.saved_runs import (
    SavedRun,
    SavedRunsError,
    read_saved_runs,
    recorded_dataset,
)

MESSAGES = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "What is 1 + 2?"},
    {"role": "assistant", "content": "#### 3"},
]
ROW = {"system_prompt": "s", "user_prompt": "What is 1 + 2?", "ground_truth": "3", "level": 2}


def exact(solution_str: str, ground_truth: str) -> float:
    return float(solution_str == f"#### {ground_truth}")


def saved(**fields: Any) -> SavedRun:
    return SavedRun("here", **{"messages": MESSAGES, "ground_truth": "3", "reward": 0.0, **fields})


async def rescored(*runs: SavedRun, fn: Any = exact, truths: GroundTruths | None = None) -> RescoringReport:
    return await rescore(runs, EvalFnWrapper(fn, "m:fn"), truths)


@pytest.fixture
def truths(tmp_path: Path) -> GroundTruths:
    other = {**ROW, "user_prompt": "What is 2 + 2?", "ground_truth": "4"}
    twice = [{**ROW, "user_prompt": "twice", "ground_truth": truth} for truth in "56"]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (ROW, other, *twice)))
    return GroundTruths(DatasetReader(path))


class TestRescoring:
    async def test_it_shows_what_changed(self) -> None:
        report = await rescored(saved(row_index=0), saved(reward=1.0), saved(reward=0.5, ground_truth="4"))
        summary = report.summary()
        assert (summary["runs"], summary["rescored"], summary["changed"]) == (3, 3, 2)
        assert (summary["mean_reward_before"], summary["mean_reward"]) == (pytest.approx(0.5), pytest.approx(2 / 3))
        assert (summary["now_pass"], summary["now_fail"]) == (1, 0)
        assert [run.reward_after for run in report.changed] == [1.0, 0.0]
        assert report.flipped[0].row_index == 0

    async def test_a_reward_may_come_and_go(self) -> None:
        def sometimes(solution_str: str, ground_truth: str) -> float | None:
            return None if ground_truth == "none" else 1.0

        summary = (await rescored(saved(reward=None), saved(ground_truth="none"), fn=sometimes)).summary()
        assert (summary["gained_reward"], summary["lost_reward"], summary["changed"]) == (1, 1, 2)
        assert (summary["compared"], summary["mean_reward_before"]) == (0, None)

    async def test_a_function_that_fails_is_no_reward_of_zero(self) -> None:
        def fail(solution_str: str) -> float:
            raise KeyError("gone")

        report = await rescored(saved(reward=1.0), saved(reward=1.0), fn=fail)
        assert report.verdicts == {RescoringVerdict.FUNCTION_FAILED: 2}
        assert report.changed == []
        assert report.summary()["errors"] == [
            {"kind": "function_failed", "text": "KeyError: 'gone'", "count": 2},
        ]

    async def test_calls_of_a_coroutine_function_overlap(self) -> None:
        import asyncio

        all_there = asyncio.Barrier(5)

        async def meet(solution_str: str) -> float:
            await all_there.wait()
            return 1.0

        assert (await rescored(*[saved()] * 5, fn=meet)).summary()["rescored"] == 5

    async def test_scores_of_the_same_function_are_what_it_is_compared_with(self) -> None:
        report = await rescored(saved(scores={"m:fn": 1.0}))
        assert report.changed == []

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({"completed": False}, "it did not complete, so it has no reward"),
            ({"messages": None}, "its conversation was not saved"),
            ({"messages": None, "has_summaries": True}, "its trace holds only summaries of messages"),
            ({"ground_truth": None}, "its ground truth was not saved; name the dataset with -d"),
        ],
    )
    async def test_what_is_not_known_is_not_guessed(self, fields: dict[str, Any], problem: str) -> None:
        report = await rescored(saved(**fields))
        assert report.runs[0].verdict is RescoringVerdict.NOT_RESCORABLE
        assert report.runs[0].problem == problem

    async def test_a_function_without_ground_truth_needs_none(self) -> None:
        assert (await rescored(saved(ground_truth=None), fn=lambda solution_str: 1.0)).summary()["rescored"] == 1

    async def test_the_row_is_the_same_as_in_an_evaluation(self) -> None:
        seen: list[Any] = []

        def look(solution_str: str, extra_info: dict[str, Any]) -> float:
            seen.append(extra_info)
            return 1.0

        await rescored(saved(metadata={"level": 2}), fn=look)
        assert seen == [ROW]


class TestGroundTruthsOfADataset:
    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"row_index": 0}, 1.0),
            ({"row_index": None}, 1.0),
            ({"row_index": 1}, "the dataset's row of its number has another prompt"),
            ({"row_index": 9}, "the dataset has no row of its number that can be used"),
            (
                {"messages": [MESSAGES[0], {"role": "user", "content": "twice"}]},
                "rows of the dataset with its prompt have different ground truths",
            ),
            ({"messages": MESSAGES[1:]}, "no row of the dataset has its prompt"),
        ],
    )
    async def test_a_row_must_be_the_one_that_was_run(
        self, truths: GroundTruths, fields: dict[str, Any], expected: float | str
    ) -> None:
        [run] = (await rescored(saved(ground_truth=None, **fields), truths=truths)).runs
        assert (run.reward_after if run.problem is None else run.problem) == expected


class TestReading:
    def test_results_of_the_trainer(self, tmp_path: Path) -> None:
        (tmp_path / "rows.jsonl").write_text(json.dumps(ROW))
        entries = [
            {
                "row_index": 0,
                "repeat": 1,
                "rollout_id": "r",
                "status": "COMPLETED",
                "reward": 1.0,
                "final_messages": MESSAGES,
            },
            {"row_index": 1, "repeat": 0, "rollout_id": "s", "status": "ERROR", "reward": None, "final_messages": []},
        ]
        path = tmp_path / "results.json"
        path.write_text(json.dumps({"settings": {"dataset": str(tmp_path / "rows.jsonl")}, "results": entries}))
        first, second = read_saved_runs(path)
        assert (first.row_index, first.repeat, first.rollout_id, first.reward) == (0, 1, "r", 1.0)
        assert (first.completed, first.messages, first.ground_truth) == (True, MESSAGES, None)
        assert (second.completed, second.messages) == (False, None)
        assert recorded_dataset(path) == (tmp_path / "rows.jsonl", None)

    def test_lines_of_a_test_that_was_cut_off(self, tmp_path: Path) -> None:
        run = {"row_index": 4, "repeat": 0, "success": True, "ground_truth": "3", "metadata": {"level": 2}}
        broken_reward = {"row_index": 5, "success": False, "error_kind": "reward", "messages": MESSAGES}
        path = tmp_path / "results.jsonl"
        lines = [{"format": "x", "inputs": {}}, {**run, "messages": MESSAGES, "reward": 0.5}, broken_reward]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"row_index": 6, "suc')
        first, second = read_saved_runs(path)
        assert (first.row_index, first.ground_truth, first.reward, first.metadata) == (4, "3", 0.5, {"level": 2})
        assert second.completed
        assert recorded_dataset(path) is None

    def test_lines_that_were_gone_on_with_hold_each_run_once(self, tmp_path: Path) -> None:
        (tmp_path / "rows.jsonl").write_text(json.dumps(ROW))
        run = {"row_index": 4, "repeat": 0, "ground_truth": "3", "messages": MESSAGES}
        lines = [
            {"format": "x", "config": {"dataset": str(tmp_path / "rows.jsonl")}, "inputs": {}},
            {**run, "success": False},
            {**run, "repeat": 1, "success": True},
            {**run, "success": True, "reward": 1.0},
            {"finished": True},
        ]
        path = tmp_path / "results.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert [(found.repeat, found.completed) for found in read_saved_runs(path)] == [(1, True), (0, True)]
        assert recorded_dataset(path) == (tmp_path / "rows.jsonl", None)

    def test_results_of_an_evaluation(self, tmp_path: Path) -> None:
        run = {"run_index": 2, "success": True, "scores": {"m:fn": 1}, "final_messages": MESSAGES, "ground_truth": "3"}
        path = tmp_path / "results.json"
        path.write_text(json.dumps({"config": {}, "rows": [{"row_index": 7, "runs": [run]}]}))
        [only] = read_saved_runs(path)
        assert (only.row_index, only.repeat, only.scores, only.ground_truth) == (7, 2, {"m:fn": 1}, "3")

    def test_a_trace_with_the_whole_conversation(self, tmp_path: Path) -> None:
        trace = TraceWriter(str(tmp_path / "traces" / "1"), "r-1")
        trace.write("start", {"metadata": {"ground_truth": "3", "row_index": 2}, "messages": MESSAGES[:2]})
        trace.write("llm_response", {"message": MESSAGES[2]})
        trace.write("rollout_complete", {"reward": 1.0})
        [only] = read_saved_runs(tmp_path / "traces")
        assert (only.rollout_id, only.row_index, only.ground_truth) == ("r-1", 2, "3")
        assert (only.messages, only.reward, only.completed) == (MESSAGES, 1.0, True)

    def test_a_trace_with_summaries_is_told_apart_and_an_error_is_no_completion(self, tmp_path: Path) -> None:
        trace = TraceWriter(str(tmp_path), "r-1")
        trace.write("llm_response", {"message_summary": {"role": "assistant", "content": "#### 3"}})
        trace.write("rollout_error", {"error": "x"})
        [only] = read_saved_runs(tmp_path)
        assert (only.messages, only.has_summaries, only.completed) == (None, True, False)

    @pytest.mark.parametrize("content", ["[1]", "{}", "not json", '{"results": 3}', "[" * 100_000])
    def test_a_file_that_holds_something_else_is_refused_in_a_sentence(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "x.json"
        path.write_text(content)
        with pytest.raises(SavedRunsError, match=r"x\.json"):
            list(read_saved_runs(path))

    @pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
    def test_a_fifo_is_refused_at_once(self, tmp_path: Path, name: str) -> None:
        os.mkfifo(tmp_path / name)
        with pytest.raises(SavedRunsError, match=r"^Cannot read .*/x\.jsonl?: it is not a regular file\.$"):
            list(read_saved_runs(tmp_path / name))

    def test_a_fifo_among_traces_is_passed_over(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.jsonl")
        TraceWriter(str(tmp_path), "r-1").write("llm_response", {"message": MESSAGES[2]})
        assert [run.rollout_id for run in read_saved_runs(tmp_path)] == ["r-1"]

    def test_results_of_gigabytes_are_to_be_read_as_lines(self, tmp_path: Path) -> None:
        with (tmp_path / "x.json").open("wb") as file:
            file.truncate(20 * 1024**3)  # of holes
        with pytest.raises(SavedRunsError, match=r"too large to be read at once: name .*/x\.jsonl,"):
            list(read_saved_runs(tmp_path / "x.json"))

    def test_a_folder_without_traces_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SavedRunsError, match="holds no traces"):
            list(read_saved_runs(tmp_path))

    @pytest.mark.parametrize("entry", [3, None, {"row_index": "x", "reward": "1", "final_messages": [3], "scores": 1}])
    def test_an_entry_of_another_shape_is_a_run_of_which_nothing_is_known(self, tmp_path: Path, entry: Any) -> None:
        path = tmp_path / "x.json"
        path.write_text(json.dumps({"results": [entry]}))
        [only] = read_saved_runs(path)
        assert (only.row_index, only.reward, only.messages, only.scores) == (None, None, None, {})
