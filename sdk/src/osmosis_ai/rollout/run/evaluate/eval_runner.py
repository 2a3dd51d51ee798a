"""Runs an agent over a dataset, n times a row, with one model or two, and scores what comes out.

Rows come first, then runs, then models; with ``batch_size`` above 1 that many runs are under way at a time. A systemic
error of a model, one that every run would meet, stops that model and no other.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutResult
from osmosis_ai.rollout.core.messages import get_message_text
from osmosis_ai.rollout.core.reward_parts import known_components
from osmosis_ai.rollout.run.driver import Job, RunPlan, Stops, drive
from osmosis_ai.rollout.run.errors import SystemicProviderError
from osmosis_ai.rollout.run.evaluate.eval_fn import (
    RESULT,
    EvalFnError,
    EvalFnWrapper,
    NoRewardError,
    as_told,
    described,
)
from osmosis_ai.rollout.run.evaluate.eval_results import (
    BASELINE,
    PRIMARY,
    EvalEvalSummary,
    EvalModelSummary,
    EvalResult,
    EvalRowResult,
    EvalRunResult,
    rollout_id_of,
)
from osmosis_ai.rollout.run.evaluate.statistics import DEFAULT_SEED, Interval, pass_at_k
from osmosis_ai.rollout.run.evaluate.summary import compare, runs_with_tag, summarize
from osmosis_ai.rollout.run.local_runner import DEBUG_DIRECTORY, LocalRolloutRunner
from osmosis_ai.rollout.run.models.choice import close_quietly, for_one_run
from osmosis_ai.rollout.run.models.patience import Gate, PatientClient
from osmosis_ai.rollout.run.results.entry import answered_calls

if TYPE_CHECKING:
    from osmosis_ai.rollout.run.data.dataset import DatasetRow

__all__ = [
    "EvalEvalSummary",
    "EvalModelSummary",
    "EvalResult",
    "EvalRowResult",
    "EvalRunResult",
    "EvalRunner",
    "pass_at_k",
]

logger = logging.getLogger(__name__)

MAX_ANSWER_CHARACTERS = 2_000

ClientFactory = Callable[[], Any]
ProgressCallback = Callable[[int, int, EvalRunResult], Any]
"""Gets the number of runs made, their total, and the run just made."""


class EvalRunner:
    """Evaluates one agent loop, which all runs share; it must keep its state in ``run``.

    Rate limits and passing faults are waited out.

    Args:
        llm_client: the model; with ``batch_size`` above 1 each run in flight has a client of ``llm_client_factory``
            instead, by default one like ``llm_client``, on the same connections where it can share them.
        debug_dir: where ``ctx.log_event`` writes; ``./local_debug`` if ``debug`` and nothing else is said.
        baseline_llm_client: a second model to compare with.
        seed: of the permutation tests of a comparison.
        score_bounds: what every score must lie in: intervals stay there, and a score beyond is its function's failure.
        timeout_seconds: limit of one run of the agent; none by default.
    """

    def __init__(
        self,
        agent_loop: RolloutAgentLoop,
        llm_client: Any,
        eval_fns: Sequence[EvalFnWrapper],
        debug: bool = False,
        debug_dir: str | None = None,
        llm_client_factory: ClientFactory | None = None,
        baseline_llm_client: Any = None,
        baseline_llm_client_factory: ClientFactory | None = None,
        *,
        seed: int = DEFAULT_SEED,
        timeout_seconds: float | None = None,
        score_bounds: Interval | None = None,
    ) -> None:
        self.agent_loop = agent_loop
        self.llm_client = llm_client
        self.eval_fns = list(eval_fns)
        self.debug = debug
        self.debug_dir = debug_dir or (DEBUG_DIRECTORY if debug else None)
        self.baseline_llm_client = baseline_llm_client
        self.seed = seed
        self.timeout_seconds = timeout_seconds
        self.score_bounds = score_bounds
        self._clients = {PRIMARY: llm_client} | ({BASELINE: baseline_llm_client} if self.has_baseline else {})
        self._factories = {PRIMARY: llm_client_factory, BASELINE: baseline_llm_client_factory}
        self._gates = {tag: Gate() for tag in self._clients}
        self._runners = {tag: self._make_runner(tag, client) for tag, client in self._clients.items()}
        self._failed_eval_fns: set[str] = set()
        self._result_so_far: Callable[[], EvalResult] | None = None

    @property
    def has_baseline(self) -> bool:
        """Whether there is a second model."""
        return self.baseline_llm_client is not None

    async def run_single(
        self,
        row: "DatasetRow",
        row_index: int,
        run_index: int,
        max_turns: int = 10,
        completion_params: Mapping[str, Any] | None = None,
        runner: LocalRolloutRunner | None = None,
        model_tag: str | None = None,
    ) -> EvalRunResult:
        """Run ``row`` once and score it.

        ``runner`` defaults to that of the model ``model_tag``. An eval function that fails does not keep the others
        from scoring: it is in ``eval_errors``.

        Raises:
            SystemicProviderError: the model will answer no run; ``duration_ms`` and ``tokens`` say what this one cost.
        """
        if runner is None:
            runner = self._runners.get(model_tag or PRIMARY, self._runners[PRIMARY])
        local = await runner.run_single(
            row=row,
            row_index=row_index,
            max_turns=max_turns,
            completion_params=completion_params,
            rollout_id=rollout_id_of(row_index, run_index, model_tag),
            request_metadata={"run_index": run_index},
        )
        run = EvalRunResult(
            run_index=run_index,
            success=local.success,
            duration_ms=local.duration_ms,
            tokens=local.token_usage.get("total_tokens", 0),
            model_tag=model_tag,
            row_index=row_index,
            token_usage=local.token_usage,
            tool_calls=local.num_tool_calls or answered_calls(local.messages),
            final_messages=local.messages,
            answer=_last_words(local.messages),
            **local.notes(),
        )
        result = local.result
        if result is not None:
            run.reward, run.finish_reason = result.reward, result.finish_reason
            run.reward_components = known_components(result.extra_fields) if local.success else {}
        if local.success and result is not None:
            await self._score(run, result, row)
        else:
            run.success = False
            run.error = local.error or getattr(result, "error_message", None)
        return run

    async def _score(self, run: EvalRunResult, result: RolloutResult, row: "DatasetRow") -> None:
        for eval_fn in self.eval_fns:
            try:
                told = as_told(result) if eval_fn.takes(RESULT) else None
                score = await eval_fn(result.final_messages, row["ground_truth"], dict(row), told)
                if self.score_bounds is not None and not self.score_bounds.holds(score):
                    low, high = self.score_bounds.low, self.score_bounds.high
                    raise EvalFnError(
                        f"{eval_fn.name} returned {score:g}, which is beyond the stated {low:g} to {high:g}."
                    )
                run.scores[eval_fn.name] = float(score)
                if parts := getattr(score, "components", None):
                    run.components[eval_fn.name] = parts
            except NoRewardError:
                run.unscored.append(eval_fn.name)
            except Exception as error:  # noqa: BLE001 - it is the author's code, and the other functions go on
                run.scores[eval_fn.name] = 0.0
                run.eval_errors[eval_fn.name] = described(error)
                level = logging.DEBUG if eval_fn.name in self._failed_eval_fns else logging.WARNING
                self._failed_eval_fns.add(eval_fn.name)
                logger.log(
                    level, "Eval function %s failed on row %s: %s", eval_fn.name, run.row_index, described(error)
                )

    async def run_eval(
        self,
        rows: Sequence["DatasetRow"],
        n_runs: int = 1,
        max_turns: int = 10,
        completion_params: Mapping[str, Any] | None = None,
        pass_threshold: float = 1.0,
        on_progress: ProgressCallback | None = None,
        start_index: int = 0,
        batch_size: int = 1,
        *,
        earlier_runs: Iterable[EvalRunResult] = (),
        row_indices: Sequence[int] | None = None,
    ) -> EvalResult:
        """Run every row ``n_runs`` times with each model; ``earlier_runs`` count as made.

        ``row_indices`` are the numbers of the rows, where they do not simply count from ``start_index``.

        ``on_progress(done, total, run)`` follows each run, the failed ones too. A systemic error counts as a failed
        run; if it kept further runs from starting, the result says ``stopped_early`` and why.
        """
        started_at = time.monotonic()
        tags: tuple[str | None, ...] = (PRIMARY, BASELINE) if self.has_baseline else (None,)
        plan = RunPlan(start_index, n_runs, tags)
        runs = list(earlier_runs)
        done = {plan.slot_of(vars(run)) for run in runs}
        total = len(rows) * n_runs * len(tags)
        stops = Stops()

        def result() -> EvalResult:
            duration_ms = (time.monotonic() - started_at) * 1000
            return self._result(runs, total, stops, n_runs, pass_threshold, duration_ms)

        async def run_one(job: Job) -> tuple[EvalRunResult, str | None]:
            runner = idle[job.tag].pop() if idle[job.tag] else self._new_runner(job.tag, clients)
            job_started_at = time.monotonic()
            try:
                run = await self.run_single(
                    row=job.row,
                    row_index=job.row_index,
                    run_index=job.repeat,
                    max_turns=max_turns,
                    completion_params=completion_params,
                    runner=runner,
                    model_tag=job.tag,
                )
            except SystemicProviderError as error:
                duration_ms, tokens = _extract_systemic_error_metrics(error, job_started_at)
                run = EvalRunResult(job.repeat, False, {}, duration_ms, tokens, str(error), job.tag)
                run.error_kind = error.failure.value
                return run, str(error)
            finally:
                idle[job.tag].append(runner)
            return run, None

        def take(job: Job, run: EvalRunResult) -> None:
            run.row_index = job.row_index
            runs.append(run)
            if on_progress is not None:
                on_progress(len(runs), total, run)
            run.final_messages = None  # a conversation is for on_progress only

        self._result_so_far = result
        # A runner, and the client in it, serves one run at a time.
        idle = {tag: [self._runners[tag or PRIMARY]] if batch_size == 1 else [] for tag in tags}
        clients: list[Any] = []
        try:
            jobs = plan.jobs(zip(row_indices or count(start_index), rows, strict=False), done.__contains__)
            await drive(jobs, run_one, take, concurrency=max(batch_size, 1), tags=tags, stops=stops)
        finally:
            for client in clients:
                await asyncio.shield(close_quietly(client))
        return result()

    def result_so_far(self, stop_reason: str) -> EvalResult | None:
        """What a ``run_eval`` that was cancelled or failed had come to; ``None`` if none was ever called."""
        if self._result_so_far is None:
            return None
        result = self._result_so_far()
        result.stopped_early, result.stop_reason = True, stop_reason
        return result

    def _new_runner(self, tag: str | None, clients: list[Any]) -> LocalRolloutRunner:
        tag = tag or PRIMARY
        make = self._factories[tag]
        clients.append(make() if make else _client_like(self._clients[tag]))
        return self._make_runner(tag, clients[-1])

    def _result(
        self,
        runs: Sequence[EvalRunResult],
        total: int,
        stops: Stops,
        n_runs: int,
        pass_threshold: float,
        duration_ms: float,
    ) -> EvalResult:
        rows = _rows_of(runs)
        stopped_early = len(runs) < total
        by_tag = {tag: runs_with_tag(rows, tag) for tag in (PRIMARY, BASELINE)} if self.has_baseline else {"": rows}
        summaries = {
            tag: {
                eval_fn.name: summarize(eval_fn.name, tagged, n_runs, pass_threshold, self.score_bounds)
                for eval_fn in self.eval_fns
            }
            for tag, tagged in by_tag.items()
        }
        result = EvalResult(
            rows=rows,
            eval_summaries=next(iter(summaries.values())),
            total_rows=len(rows),
            total_runs=len(runs),
            total_tokens=sum(run.tokens for run in runs),
            total_duration_ms=duration_ms,
            n_runs=n_runs,
            pass_threshold=pass_threshold,
            stopped_early=stopped_early,
            stop_reason=stops.first_reason if stopped_early else None,
        )
        if self.has_baseline:
            result.model_summaries = [
                _model_summary(client, tag, by_tag[tag], summaries[tag]) for tag, client in self._clients.items()
            ]
            for eval_fn in self.eval_fns:
                comparison = compare(eval_fn.name, by_tag[PRIMARY], by_tag[BASELINE], self.seed, self.score_bounds)
                if comparison is not None:
                    result.comparisons[eval_fn.name] = comparison
        return result

    def _compute_summaries(
        self, row_results: Sequence[EvalRowResult], n_runs: int, pass_threshold: float
    ) -> dict[str, EvalEvalSummary]:
        return {
            eval_fn.name: summarize(eval_fn.name, row_results, n_runs, pass_threshold, planned_runs=n_runs)
            for eval_fn in self.eval_fns
        }

    def _filter_runs_by_tag(self, row_results: Sequence[EvalRowResult], tag: str | None) -> list[EvalRowResult]:
        return runs_with_tag(row_results, tag)

    def _make_runner(self, tag: str, client: Any) -> LocalRolloutRunner:
        metadata = {"execution_mode": "eval"} | ({"model_tag": BASELINE} if tag == BASELINE else {})
        return LocalRolloutRunner(
            agent_loop=self.agent_loop,
            llm_client=PatientClient(client, self._gates[tag]),
            debug=self.debug,
            debug_dir=self.debug_dir,
            rollout_id_prefix="eval-baseline" if tag == BASELINE else "eval",
            request_metadata=metadata,
            timeout_seconds=self.timeout_seconds,
        )


def _rows_of(runs: Iterable[EvalRunResult]) -> list[EvalRowResult]:
    """In the order of the dataset, whatever the order they ended in; primary before baseline."""
    rows: dict[int, EvalRowResult] = {}
    for run in sorted(runs, key=lambda run: (run.row_index or 0, run.model_tag == BASELINE, run.run_index)):
        rows.setdefault(run.row_index or 0, EvalRowResult(run.row_index or 0)).runs.append(run)
    return list(rows.values())


def _last_words(messages: Sequence[Mapping[str, Any]] | None) -> str | None:
    for message in reversed(messages or ()):
        if message.get("role") == "assistant" and (text := get_message_text(dict(message)).strip()):
            return text[-MAX_ANSWER_CHARACTERS:]
    return None


def _client_like(client: Any) -> Any:
    own = for_one_run(client)
    if own is client and hasattr(client, "_api_base"):
        from osmosis_ai.rollout.run.models.llm_client import ExternalLLMClient

        return ExternalLLMClient(model=client.display_name, api_key=client._api_key, api_base=client._api_base)
    return own


def _model_summary(
    client: Any, tag: str, rows: Sequence[EvalRowResult], summaries: dict[str, EvalEvalSummary]
) -> EvalModelSummary:
    runs = [run for row in rows for run in row.runs]
    return EvalModelSummary(
        model=str(getattr(client, "display_name", type(client).__name__)),
        model_tag=tag,
        eval_summaries=summaries,
        total_runs=len(runs),
        total_tokens=sum(run.tokens for run in runs),
        total_duration_ms=sum(run.duration_ms for run in runs),
    )


def _extract_systemic_error_metrics(error: SystemicProviderError, fallback_started_at: float) -> tuple[float, int]:
    """Milliseconds and tokens the error's run took: as it says, else the time since ``fallback_started_at`` and 0."""
    duration_ms = error.duration_ms
    if duration_ms is None:
        duration_ms = (time.monotonic() - fallback_started_at) * 1000
    return float(duration_ms), int(error.tokens or 0)
