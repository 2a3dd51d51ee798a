import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.model_endpoint import Answer, ModelEndpoint, refuse, say
from support.rollouts import ScriptedAgent, chat_once

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.run.data.dataset import DatasetRow
from osmosis_ai.rollout.run.errors import ProviderError, ProviderFailure, SystemicProviderError
from osmosis_ai.rollout.run.evaluate import EvalFnWrapper, EvalResult, EvalRowResult, EvalRunner, EvalRunResult
from osmosis_ai.rollout.run.evaluate.eval_runner import _extract_systemic_error_metrics
from osmosis_ai.rollout.run.models.choice import make_llm_client
from osmosis_ai.rollout.run.policies import ArithmeticPolicy


def rows_of(count: int) -> list[DatasetRow]:
    return [
        {"ground_truth": str(2 * number), "user_prompt": f"What is {number} + {number}?", "system_prompt": "s"}
        for number in range(count)
    ]


def right(solution_str: str, ground_truth: str) -> float:
    return float(solution_str.endswith(f"#### {ground_truth}"))


def crash(solution_str: str) -> float:
    raise ValueError("no \x1b[31mway")


def silent(solution_str: str) -> None:
    return None


FUNCTIONS: dict[str, Callable[..., Any]] = {"right": right, "crash": crash, "silent": silent}


def eval_fns(*names: str) -> list[EvalFnWrapper]:
    return [EvalFnWrapper(FUNCTIONS[name], name) for name in names or ("right",)]


def answer_sum(body: dict[str, Any]) -> Answer:
    """A model that doubles numbers in its head."""
    number = int(body["messages"][-1]["content"].split()[2])
    return say(f"#### {2 * number}")


async def give_up(ctx: RolloutContext) -> Any:
    """An agent that calls no model."""
    return ctx.error("no idea")


class StandIn:
    """A client as an outsider's test writes one: no more than the documented names."""

    display_name, _api_key, _api_base = "stand-in", "key", None

    def __init__(self, fail_from: int = 1_000, error: type[ProviderError] = SystemicProviderError) -> None:
        self.calls = 0
        self.most_in_flight = self._in_flight = 0
        self.closed = 0
        self._fail_from = fail_from
        self._error = error
        self._metrics = ArithmeticPolicy()

    def set_tools(self, tools: list[Any]) -> None:
        pass

    def clear_tools(self) -> None:
        pass

    def reset_metrics(self) -> None:
        self._metrics.reset_metrics()

    def get_metrics(self) -> Any:
        return self._metrics.get_metrics()

    async def chat_completions(self, messages: list[dict[str, Any]], **kwargs: Any) -> Any:
        self.calls += 1
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        await asyncio.sleep(0)
        self._in_flight -= 1
        if self.calls >= self._fail_from:
            raise self._error("gone for good")
        return await self._metrics.chat_completions(messages, **kwargs)

    async def close(self) -> None:
        self.closed += 1
        raise RuntimeError("cannot close")


def runner_of(client: Any = None, *names: str, agent: ScriptedAgent | None = None, **options: Any) -> EvalRunner:
    client = client or StandIn()
    if isinstance(client, StandIn):
        options.setdefault("llm_client_factory", StandIn)
    return EvalRunner(agent or ScriptedAgent(chat_once), client, eval_fns(*names), **options)


class TestOneRun:
    async def test_it_is_scored_by_every_function_whatever_the_others_do(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        agent = ScriptedAgent(chat_once)
        runner = runner_of(ArithmeticPolicy(), "right", "crash", "silent", agent=agent)
        with caplog.at_level(logging.WARNING):
            run = await runner.run_single(rows_of(1)[0], 0, 2)
        assert run.success
        assert run.scores == {"right": 0.0, "crash": 0.0}
        assert run.eval_errors == {"crash": "ValueError: no way"}
        assert run.unscored == ["silent"]
        assert (run.run_index, run.reward, run.tokens > 0) == (2, 1.0, True)
        assert "crash failed on row 0" in caplog.text
        request = agent.runs[0].request
        assert request.rollout_id == "eval-0-run-2"
        assert request.metadata["execution_mode"] == "eval"
        assert request.metadata["run_index"] == 2

    async def test_an_agent_that_fails_is_told_and_not_scored(self) -> None:
        run = await runner_of(agent=ScriptedAgent(give_up)).run_single(rows_of(1)[0], 0, 0)
        assert (run.success, run.error, run.scores, run.eval_errors) == (False, "no idea", {}, {})

    async def test_a_systemic_error_is_raised_with_what_the_run_cost(self) -> None:
        with pytest.raises(SystemicProviderError) as raised:
            await runner_of(StandIn(fail_from=1)).run_single(rows_of(1)[0], 0, 0)
        assert raised.value.duration_ms is not None
        assert raised.value.tokens == 0

    async def test_a_run_has_a_time_limit_where_one_is_given(self) -> None:
        async def hang(ctx: RolloutContext) -> Any:
            await asyncio.Event().wait()

        run = await runner_of(agent=ScriptedAgent(hang), timeout_seconds=0.02).run_single(rows_of(1)[0], 0, 0)
        assert run.error == "No result within 0.02 s."

    def test_what_an_error_does_not_say_is_measured(self) -> None:
        error = SystemicProviderError("gone")
        duration_ms, tokens = _extract_systemic_error_metrics(error, time.monotonic() - 1)
        assert duration_ms >= 1000
        assert tokens == 0
        error.duration_ms, error.tokens = 5.0, 7
        assert _extract_systemic_error_metrics(error, 0.0) == (5.0, 7)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
class TestAnEvaluation:
    async def test_every_row_is_run_n_times_in_the_order_of_the_dataset(self, batch_size: int) -> None:
        progress: list[tuple[int, int]] = []

        def note(done: int, total: int, run: EvalRunResult) -> None:
            assert run.final_messages
            progress.append((done, total))

        result = await runner_of().run_eval(
            rows_of(3), n_runs=2, on_progress=note, start_index=10, batch_size=batch_size
        )
        assert progress == [(done, 6) for done in range(1, 7)]
        assert [(row.row_index, [run.run_index for run in row.runs]) for row in result.rows] == [
            (number, [0, 1]) for number in (10, 11, 12)
        ]
        assert (result.total_rows, result.total_runs, result.stopped_early, result.stop_reason) == (3, 6, False, None)
        assert result.total_tokens == sum(run.tokens for row in result.rows for run in row.runs) > 0
        assert all(run.model_tag is None and run.final_messages is None for row in result.rows for run in row.runs)
        assert result.model_summaries is None
        assert set(result.eval_summaries["right"].pass_at_k) == {1, 2}

    async def test_it_goes_through_a_real_endpoint(self, batch_size: int) -> None:
        with ModelEndpoint(otherwise=answer_sum) as endpoint:
            client = make_llm_client("m", None, endpoint.url)
            result = await runner_of(client).run_eval(rows_of(5), batch_size=batch_size)
            await client.close()
        assert result.eval_summaries["right"].mean == 1.0
        assert result.total_tokens == 5 * 15
        assert len(endpoint.calls) == 5
        assert endpoint.most_in_flight <= batch_size

    async def test_a_rate_limit_is_waited_out(self, batch_size: int) -> None:
        with ModelEndpoint(refuse(429, Retry_After="0"), otherwise=answer_sum) as endpoint:
            client = make_llm_client("m", None, endpoint.url)
            result = await runner_of(client).run_eval(rows_of(2), batch_size=batch_size)
            await client.close()
        assert (result.eval_summaries["right"].mean, len(endpoint.calls)) == (1.0, 3)

    async def test_an_ordinary_failure_stops_nothing(self, batch_size: int) -> None:
        async def fail_at_first(ctx: RolloutContext) -> Any:
            if ctx.request.metadata["row_index"] == 0:
                raise RuntimeError("first")
            return await chat_once(ctx)

        result = await runner_of(agent=ScriptedAgent(fail_at_first)).run_eval(rows_of(3), batch_size=batch_size)
        assert [row.runs[0].error for row in result.rows] == ["first", None, None]
        assert not result.stopped_early

    async def test_with_a_baseline_both_models_run_every_row(self, batch_size: int) -> None:
        agent = ScriptedAgent(chat_once)
        baseline = StandIn()
        baseline.display_name = "other"
        runner = runner_of(
            StandIn(),
            agent=agent,
            baseline_llm_client=baseline,
            llm_client_factory=StandIn,
            baseline_llm_client_factory=StandIn,
        )
        result = await runner.run_eval(rows_of(2), n_runs=2, batch_size=batch_size)
        assert runner.has_baseline
        assert [(run.model_tag, run.run_index) for run in result.rows[0].runs] == [
            ("primary", 0),
            ("primary", 1),
            ("baseline", 0),
            ("baseline", 1),
        ]
        assert result.model_summaries is not None
        assert [(model.model, model.model_tag, model.total_runs) for model in result.model_summaries] == [
            ("stand-in", "primary", 4),
            ("other", "baseline", 4),
        ]
        assert result.comparisons["right"].rows == 2
        ids = {run.request.rollout_id for run in agent.runs}
        assert {"eval-0-run-0-primary", "eval-1-run-1-baseline"} <= ids
        tags = {run.request.rollout_id: run.request.metadata.get("model_tag") for run in agent.runs}
        assert (tags["eval-0-run-0-primary"], tags["eval-0-run-0-baseline"]) == (None, "baseline")


class TestClients:
    async def test_each_run_in_flight_has_a_client_of_its_own_and_all_are_closed(self) -> None:
        made: list[StandIn] = []

        def make() -> StandIn:
            made.append(StandIn())
            return made[-1]

        own = StandIn()
        await runner_of(own, llm_client_factory=make).run_eval(rows_of(6), batch_size=3)
        assert len(made) == 3
        assert [client.most_in_flight for client in made] == [1, 1, 1]
        assert [client.closed for client in made] == [1, 1, 1]
        assert (own.calls, own.closed) == (0, 0)

    async def test_by_default_it_is_an_external_client_like_the_one_given(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("osmosis_ai.rollout.run.models.llm_client._get_litellm", object)
        agent = ScriptedAgent(give_up)
        given = StandIn()
        given.display_name = "builtin/arithmetic"
        runner = EvalRunner(agent, given, eval_fns())
        await runner.run_eval(rows_of(2), batch_size=2)
        clients: list[Any] = [run.llm for run in agent.runs]
        assert [(client.display_name, client._api_key) for client in clients] == [("builtin/arithmetic", "key")] * 2

    async def test_a_passing_fault_of_any_client_is_waited_out(self) -> None:
        class Busy(StandIn):
            async def chat_completions(self, messages: list[dict[str, Any]], **kwargs: Any) -> Any:
                if not self.calls:
                    self.calls += 1
                    raise ProviderError("busy", failure=ProviderFailure.RATE_LIMIT, retry_after_seconds=0.01)
                return await super().chat_completions(messages, **kwargs)

        result = await runner_of(Busy()).run_eval(rows_of(1))
        assert [run.success for row in result.rows for run in row.runs] == [True]

    async def test_a_slot_that_one_model_does_not_need_serves_the_other(self) -> None:
        slow, both_fast = asyncio.Event(), asyncio.Event()

        async def wait_for_the_other(ctx: RolloutContext) -> Any:
            if ctx.request.metadata.get("model_tag") is None:
                await slow.wait()
            elif ctx.request.metadata["row_index"] == 3:
                both_fast.set()
                slow.set()
            return await chat_once(ctx)

        runner = runner_of(
            agent=ScriptedAgent(wait_for_the_other),
            baseline_llm_client=StandIn(),
            llm_client_factory=StandIn,
            baseline_llm_client_factory=StandIn,
        )
        result = await runner.run_eval(rows_of(4), batch_size=5)
        assert both_fast.is_set()
        assert result.total_runs == 8


class TestStoppingEarly:
    async def test_a_systemic_error_ends_a_sequential_evaluation_and_keeps_what_there_is(self) -> None:
        seen: list[EvalRunResult] = []
        runner = runner_of(StandIn(fail_from=4))
        result = await runner.run_eval(rows_of(3), n_runs=2, on_progress=lambda done, total, run: seen.append(run))
        assert (result.stopped_early, result.stop_reason) == (True, "gone for good")
        assert [(row.row_index, [run.success for run in row.runs]) for row in result.rows] == [
            (0, [True, True]),
            (1, [True, False]),
        ]
        assert seen[-1].error == "gone for good"

    async def test_with_nothing_left_to_do_it_has_not_stopped_early(self) -> None:
        result = await runner_of(StandIn(fail_from=2)).run_eval(rows_of(2))
        assert (result.stopped_early, result.stop_reason, result.total_runs) == (False, None, 2)

    async def test_what_is_in_flight_ends_and_nothing_else_starts(self) -> None:
        started = 0
        all_in_flight = asyncio.Event()

        async def meet(ctx: RolloutContext) -> Any:
            nonlocal started
            started += 1
            if started == 3:
                all_in_flight.set()
            await all_in_flight.wait()
            if ctx.request.metadata["row_index"] == 1:
                raise SystemicProviderError("gone for good")
            return await chat_once(ctx)

        runner = runner_of(agent=ScriptedAgent(meet), llm_client_factory=StandIn)
        result = await runner.run_eval(rows_of(9), batch_size=3)
        assert result.stopped_early
        assert [row.row_index for row in result.rows][:3] == [0, 1, 2]
        assert started == result.total_runs < 9

    @pytest.mark.parametrize("batch_size", [1, 4])
    async def test_only_the_model_that_failed_stops(self, batch_size: int) -> None:
        runner = runner_of(
            StandIn(),
            baseline_llm_client=StandIn(fail_from=1),
            llm_client_factory=StandIn,
            baseline_llm_client_factory=lambda: StandIn(fail_from=1),
        )
        result = await runner.run_eval(rows_of(6), batch_size=batch_size)
        assert result.model_summaries is not None
        primary, baseline = result.model_summaries
        assert primary.total_runs == 6
        assert 1 <= baseline.total_runs <= 2
        assert (result.stopped_early, result.stop_reason) == (True, "gone for good")

    async def test_a_cancelled_evaluation_still_has_its_runs(self) -> None:
        at_the_third = asyncio.Event()

        async def hang_at_the_third(ctx: RolloutContext) -> Any:
            if ctx.request.metadata["row_index"] == 2:
                at_the_third.set()
                await asyncio.Event().wait()
            return await chat_once(ctx)

        runner = runner_of(agent=ScriptedAgent(hang_at_the_third))
        assert runner.result_so_far("interrupted") is None
        task = asyncio.create_task(runner.run_eval(rows_of(5)))
        await at_the_third.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        result = runner.result_so_far("interrupted")
        assert isinstance(result, EvalResult)
        assert (result.total_runs, result.stopped_early, result.stop_reason) == (2, True, "interrupted")

    @pytest.mark.parametrize("batch_size", [1, 2])
    async def test_what_on_progress_raises_is_raised(self, batch_size: int) -> None:
        def fail(done: int, total: int, run: EvalRunResult) -> None:
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            await runner_of(llm_client_factory=StandIn).run_eval(rows_of(3), on_progress=fail, batch_size=batch_size)


class TestNamesThatOtherCodeReachesInto:
    def test_missing_runs_of_a_row_fail_in_compute_summaries(self) -> None:
        row = EvalRowResult(0, [EvalRunResult(0, True, {"right": 1.0})])
        summary = runner_of()._compute_summaries([row], n_runs=5, pass_threshold=1.0)["right"]
        assert summary.mean == 1.0
        assert summary.pass_at_k[1] == pytest.approx(0.2)

    def test_runs_are_filtered_into_new_rows(self) -> None:
        rows = [
            EvalRowResult(
                0, [EvalRunResult(0, True, model_tag="primary"), EvalRunResult(0, True, model_tag="baseline")]
            ),
            EvalRowResult(1, [EvalRunResult(0, True, model_tag="primary")]),
        ]
        [filtered] = runner_of()._filter_runs_by_tag(rows, "baseline")
        assert (filtered.row_index, len(filtered.runs), len(rows[0].runs)) == (0, 1, 2)

    def test_debugging_without_a_directory_writes_to_local_debug(self) -> None:
        assert runner_of(debug=True).debug_dir == "./local_debug"
        assert runner_of(debug=True, debug_dir="here").debug_dir == "here"
        assert runner_of().debug_dir is None
