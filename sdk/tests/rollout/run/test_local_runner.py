import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.rollouts import ScriptedAgent, tool

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema
from osmosis_ai.rollout.run import local_runner as runner_module
from osmosis_ai.rollout.run.data.dataset import DatasetRow
from osmosis_ai.rollout.run.errors import ProviderError, SystemicProviderError
from osmosis_ai.rollout.run.local_runner import LocalRolloutRunner, LocalRunResult
from osmosis_ai.rollout.run.policies import ArithmeticPolicy
from osmosis_ai.rollout.run.results.saved_runs import read_saved_runs
from osmosis_ai.rollout.run.test import LocalTestRunner

REPOSITORY = Path(__file__).parents[4]
ROW: DatasetRow = {"ground_truth": "3", "user_prompt": "What is 1 + 2?", "system_prompt": "s"}


class Failing(ArithmeticPolicy):
    """A model that answers ``good`` calls, and then fails."""

    def __init__(self, error: Exception, good: int = 0) -> None:
        super().__init__()
        self.error = error
        self.good = good

    async def chat_completions(self, messages: list[dict[str, Any]], **kwargs: Any) -> Any:
        if self.get_metrics().num_llm_calls >= self.good:
            raise self.error
        return await super().chat_completions(messages, **kwargs)


async def chat_twice(ctx: RolloutContext) -> Any:
    messages = list(ctx.request.messages)
    for _ in range(2):
        messages.append((await ctx.chat(messages, **ctx.request.completion_params)).message)
    ctx.record_tool_call(latency_ms=1)
    return ctx.complete(messages, reward=1.0)


def runner_of(agent: ScriptedAgent, client: Any = None, **options: Any) -> LocalRolloutRunner:
    return LocalRolloutRunner(agent, client or ArithmeticPolicy(), **options)


async def test_a_row_is_run_with_its_tools_and_what_it_cost_is_told() -> None:
    client = ArithmeticPolicy()
    agent = ScriptedAgent(chat_twice, tools=(OpenAIFunctionToolSchema.model_validate(tool("add")),))
    runner = runner_of(agent, client, request_metadata={"mode": "x"})
    run = await runner.run_single(ROW, 7, 3, {"temperature": 0}, request_metadata={"run_index": 1})
    assert run.success
    assert run.error is None
    assert run.row_index == 7
    assert run.duration_ms > 0
    assert run.token_usage["num_llm_calls"] == 2
    assert run.token_usage["total_tokens"] == run.token_usage["prompt_tokens"] + run.token_usage["completion_tokens"]
    assert run.num_tool_calls == 1
    assert len(agent.tool_requests) == 1
    request = agent.runs[0].request
    assert request.rollout_id == "local-7"
    assert (request.max_turns, request.completion_params) == (3, {"temperature": 0})
    assert request.metadata == {"ground_truth": "3", "row_index": 7, "mode": "x", "run_index": 1}
    assert agent.runs[0].llm is client
    assert client._tools == {}, "tools are cleared afterwards"


async def test_a_reported_error_keeps_its_reason() -> None:
    async def give_up(ctx: RolloutContext) -> Any:
        return ctx.error("no idea")

    run = await runner_of(ScriptedAgent(give_up)).run_single(ROW, 0)
    assert (run.success, run.error) == (False, "no idea")
    assert run.result is not None


async def test_a_run_that_fails_keeps_its_tokens_and_its_messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    client = Failing(ProviderError("over"), good=1)
    run = await runner_of(ScriptedAgent(chat_twice), client).run_single(ROW, 4)
    assert (run.success, run.error, run.result) == (False, "over", None)
    assert run.token_usage["num_llm_calls"] == 1
    assert [message["role"] for message in run.messages] == ["system", "user", "assistant"]
    assert [(record.levelname, record.getMessage()) for record in caplog.records if record.name.endswith("runner")] == [
        ("INFO", "Row 4 failed: over")
    ]


async def test_a_run_that_fails_before_it_costs_anything_has_no_usage() -> None:
    async def fail(ctx: RolloutContext) -> Any:
        raise ValueError("bad")

    run = await runner_of(ScriptedAgent(fail)).run_single(ROW, 0)
    assert (run.error, run.error_kind, run.token_usage) == ("bad", "ValueError", {})
    assert run.duration_ms > 0


async def test_the_traceback_is_logged_when_debugging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, runner_module.__name__)
    await runner_of(ScriptedAgent(chat_twice), Failing(ValueError("bad"))).run_single(ROW, 0)
    assert [bool(record.exc_info) for record in caplog.records if record.name == runner_module.__name__] == [True]


async def test_a_bad_tool_is_a_failed_run() -> None:
    run = await runner_of(ScriptedAgent(tools=(tool("a b"),))).run_single(ROW, 0)
    assert run.error is not None
    assert run.error.startswith("Tool validation error: Tool 0: ")


async def test_an_agent_that_returns_nothing_is_told_so() -> None:
    async def forget(ctx: RolloutContext) -> Any:
        return None

    run = await runner_of(ScriptedAgent(forget)).run_single(ROW, 0)
    assert str(run.error).startswith("The agent's run() returned NoneType, not a RolloutResult (")


async def test_a_run_out_of_time_is_a_failed_run() -> None:
    async def hang(ctx: RolloutContext) -> Any:
        await asyncio.Event().wait()

    run = await runner_of(ScriptedAgent(hang), timeout_seconds=0.01).run_single(ROW, 0)
    assert (run.error, run.error_kind) == ("No result within 0.01 s.", "time limit")


async def test_a_timeout_of_the_agents_own_stays_its_own() -> None:
    async def give_up(ctx: RolloutContext) -> Any:
        raise TimeoutError("my database")

    run = await runner_of(ScriptedAgent(give_up), timeout_seconds=5).run_single(ROW, 0)
    assert (run.error, run.error_kind) == ("my database", "TimeoutError")


async def test_a_systemic_error_passes_with_what_the_row_cost() -> None:
    client = Failing(SystemicProviderError("no key"), good=1)
    with pytest.raises(SystemicProviderError) as failure:
        await runner_of(ScriptedAgent(chat_twice), client).run_single(ROW, 0)
    assert failure.value.duration_ms is not None
    assert failure.value.duration_ms > 0
    assert failure.value.tokens


async def test_an_agent_cannot_swallow_a_systemic_error() -> None:
    async def carry_on(ctx: RolloutContext) -> Any:
        try:
            await ctx.chat(list(ctx.request.messages))
        except Exception:  # noqa: BLE001 - as careless agents do
            return ctx.complete([])

    with pytest.raises(SystemicProviderError, match="no key"):
        await runner_of(ScriptedAgent(carry_on), Failing(SystemicProviderError("no key"))).run_single(ROW, 0)


class TestBatch:
    async def test_rows_run_one_after_the_other_and_failures_do_not_stop_it(self) -> None:
        async def fail_on_the_second(ctx: RolloutContext) -> Any:
            if ctx.request.metadata["row_index"] == 6:
                raise ValueError("bad")
            return await chat_twice(ctx)

        told: list[tuple[int, int, bool]] = []
        batch = await runner_of(ScriptedAgent(fail_on_the_second)).run_batch(
            [ROW] * 3, start_index=5, on_progress=lambda done, total, run: told.append((done, total, run.success))
        )
        assert told == [(1, 3, True), (2, 3, False), (3, 3, True)]
        assert [run.row_index for run in batch.results] == [5, 6, 7]
        assert (batch.total, batch.passed, batch.failed, batch.stopped_early) == (3, 2, 1, False)
        assert batch.total_tokens == sum(run.token_usage.get("total_tokens", 0) for run in batch.results)

    async def test_a_systemic_error_stops_it_with_a_failed_row(self) -> None:
        told: list[int] = []
        batch = await runner_of(ScriptedAgent(chat_twice), Failing(SystemicProviderError("no key"))).run_batch(
            [ROW] * 3, on_progress=lambda done, total, run: told.append(done)
        )
        assert told == [1]
        assert (batch.total, batch.failed, batch.stopped_early, batch.stop_reason) == (1, 1, True, "no key")
        assert batch.results[0].error == "no key"

    async def test_an_override_of_run_single_gets_the_four_documented_keywords(self) -> None:
        class Own(LocalRolloutRunner):
            async def run_single(self, row: Any, row_index: int, max_turns: int, completion_params: Any) -> Any:  # type: ignore[override]
                return LocalRunResult(row_index, True, token_usage={"total_tokens": 5})

        batch = await Own(ScriptedAgent(), ArithmeticPolicy()).run_batch([ROW, ROW])
        assert batch.total_tokens == 10


class TestDebugFiles:
    async def test_events_are_written_beside_each_other(self, tmp_path: Path) -> None:
        async def log(ctx: RolloutContext) -> Any:
            ctx.log_event("hello", number=1)
            return ctx.complete([])

        runner = LocalTestRunner(ScriptedAgent(log), ArithmeticPolicy(), debug_dir=str(tmp_path))
        await runner.run_single(ROW, 3)
        start, hello, result = map(json.loads, (tmp_path / "test-3.jsonl").read_text().splitlines())
        assert (start["event"], start["request"]["metadata"]["ground_truth"]) == ("trace_start", ROW["ground_truth"])
        assert (hello["event"], hello["number"]) == ("hello", 1)
        assert (result["event"], result["status"]) == ("rollout_result", "COMPLETED")

    @pytest.mark.parametrize("fails", [False, True])
    async def test_they_hold_the_rollout_whole(self, tmp_path: Path, fails: bool) -> None:
        async def run(ctx: RolloutContext) -> Any:
            result = await chat_twice(ctx)
            if fails:
                raise ValueError("broken")
            return result

        await LocalTestRunner(ScriptedAgent(run), ArithmeticPolicy(), debug_dir=str(tmp_path)).run_single(ROW, 3)
        schema = json.loads((REPOSITORY / "docs/schemas/trace-event.schema.json").read_text())
        events = [json.loads(line) for line in (tmp_path / "test-3.jsonl").read_text().splitlines()]
        for event in events:
            jsonschema.validate(event, schema)
        [saved] = read_saved_runs(tmp_path)
        assert saved.ground_truth == ROW["ground_truth"]
        assert saved.completed is not fails
        assert saved.messages is not None
        assert len(saved.messages) > 3
        assert events[-1].get("error_message", "") == ("ValueError: broken" if fails else "")

    def test_the_directory_has_a_default(self) -> None:
        agent, client = ScriptedAgent(), ArithmeticPolicy()
        assert LocalRolloutRunner(agent, client).debug_dir is None
        assert LocalRolloutRunner(agent, client, debug=True).debug_dir == "./local_debug"
        assert LocalTestRunner(agent, client, debug=True).debug_dir == "./test_debug"
        assert LocalTestRunner(agent, client, debug=True, debug_dir="x").debug_dir == "x"


async def test_test_mode_marks_its_requests() -> None:
    agent = ScriptedAgent(chat_twice)
    await LocalTestRunner(agent, ArithmeticPolicy()).run_single(ROW, 2)
    request = agent.runs[0].request
    assert request.rollout_id == "test-2"
    assert request.metadata["execution_mode"] == "test"
    assert request.metadata["test_mode"] is True
