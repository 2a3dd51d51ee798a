"""Runs an agent loop on dataset rows against a model client, in this process.

A run never raises for what the agent, its tools or one call did: that becomes a failed ``LocalRunResult``, with what it
cost. Only ``SystemicProviderError`` passes, because no other row would fare better.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic_core import to_jsonable_python

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext, RolloutResult
from osmosis_ai.rollout.core.loop_blocks import CURRENT_RUN, RunInterrupted
from osmosis_ai.rollout.core.resources import run_agent
from osmosis_ai.rollout.core.results import TerminalResult, result_of_exception, result_of_return
from osmosis_ai.rollout.core.schemas import TOOL_NAME_PATTERN, RolloutRequest
from osmosis_ai.rollout.core.text import described, printable, text_of
from osmosis_ai.rollout.core.trace.format import TraceEvent
from osmosis_ai.rollout.core.validator import check_tools, provider_problem
from osmosis_ai.rollout.core.where import place_of_function
from osmosis_ai.rollout.observe.traces.recorder import start_of_trace
from osmosis_ai.rollout.run.data.dataset import DatasetRow, dataset_row_to_request
from osmosis_ai.rollout.run.driver import Job, RunPlan, drive
from osmosis_ai.rollout.run.errors import ProviderError, ProviderFailure, SystemicProviderError, ToolValidationError
from osmosis_ai.rollout.run.local_results import LocalBatchResult, LocalRunResult, RunAccount, batch_of, elapsed_ms
from osmosis_ai.rollout.run.loop_watch import LocalRun
from osmosis_ai.rollout.run.models.protocol import LocalLLMClientProtocol
from osmosis_ai.rollout.run.zero_reasons import FinishReasonWatch

__all__ = [
    "TOOL_NAME_PATTERN",
    "LocalBatchResult",
    "LocalLLMClientProtocol",
    "LocalRolloutRunner",
    "LocalRunResult",
    "validate_tools",
]

logger = logging.getLogger(__name__)

DEBUG_DIRECTORY = "./local_debug"
TOOL_REMEDY = "return the schemas of a Toolbox (TOOLS.schemas), or tools as the chat API has them."


class _RunTimeoutError(Exception):
    """The run's own time limit, not one of the agent's."""


class _LocalContext(RolloutContext):
    """Leaves it to the report to tell what the agent did that it should not."""

    def tell_of_rewrite(self, problem: str | None) -> None:
        if problem is not None:
            self.log_event(TraceEvent.MESSAGES_REWRITTEN, problem=problem)

    def tell_of_sampling(self, ignored: tuple[str, ...]) -> None:
        pass


class _AgentExitError(Exception):
    """The agent has called ``sys.exit``: the end of its run, and not of the command."""


class LocalRolloutRunner:
    """Runs one row at a time on one client. For several at a time, take a runner and a client for each.

    The agent loop is one object that all runs share, as it is on a server.

    Args:
        debug: write event files; to ``./local_debug`` unless ``debug_dir`` names another directory.
        rollout_id_prefix: ids are ``<prefix>-<row index>`` unless a call names one.
        request_metadata: added to every request's metadata.
        timeout_seconds: limit of one run; none by default.
    """

    def __init__(
        self,
        agent_loop: RolloutAgentLoop,
        llm_client: LocalLLMClientProtocol,
        debug: bool = False,
        debug_dir: str | None = None,
        rollout_id_prefix: str = "local",
        request_metadata: Mapping[str, Any] | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> None:
        self.agent_loop = agent_loop
        self.llm_client = llm_client
        self.debug = debug
        self.debug_dir = debug_dir or (DEBUG_DIRECTORY if debug else None)
        self.rollout_id_prefix = rollout_id_prefix
        self.request_metadata = dict(request_metadata or {})
        self.timeout_seconds = timeout_seconds

    async def run_single(
        self,
        row: DatasetRow,
        row_index: int,
        max_turns: int = 10,
        completion_params: Mapping[str, Any] | None = None,
        rollout_id: str | None = None,
        request_metadata: Mapping[str, Any] | None = None,
    ) -> LocalRunResult:
        """Run the agent on one row.

        Raises:
            SystemicProviderError: with ``duration_ms`` and ``tokens`` of this run filled in.
        """
        account = RunAccount(row_index, self.agent_loop, self.llm_client)
        try:
            self.llm_client.reset_metrics()
            self.llm_client.clear_tools()
            request = dataset_row_to_request(
                row,
                row_index,
                max_turns=max_turns,
                completion_params=completion_params,
                rollout_id_prefix=self.rollout_id_prefix,
                rollout_id=rollout_id,
                metadata_overrides={**self.request_metadata, **(request_metadata or {})},
            )
            account.ctx = ctx = self._context(request)
            result = await self._traced_run(ctx)
            swallowed = ctx.transcript.error
            if isinstance(swallowed, SystemicProviderError):
                raise swallowed
            if isinstance(swallowed, ProviderError) and swallowed.is_transient and result.status == "COMPLETED":
                # The agent went on without the answer: what that earns is no reward of the model.
                return self._failed(account, str(swallowed), _kind(swallowed))
            return account.ended(ctx, result)
        except ToolValidationError as error:
            return self._failed(account, f"Tool validation error: {error}", "tools")
        except SystemicProviderError as error:
            account.charge(error)
            raise
        except Exception as error:  # whatever an agent raises is the result of its row
            # A framework raises its own error for a call that failed.
            cause = account.ctx.transcript.error if account.ctx is not None else None
            if isinstance(cause, SystemicProviderError):
                account.charge(cause)
                raise cause from error
            if isinstance(cause, ProviderError):  # the agent's code has no part in it
                return self._failed(account, _text(error), _kind(cause))
            return self._failed(account, _text(error), _kind(error), error)
        finally:
            if account.ctx is not None:
                account.ctx.close()
            self.llm_client.clear_tools()

    def _failed(self, account: RunAccount, error: str, kind: str, raised: Exception | None = None) -> LocalRunResult:
        self._tell_of_failure(account.row_index, error)
        return account.failed(error, kind, raised)

    def _tell_of_failure(self, row_index: int, text: str) -> None:
        if logger.isEnabledFor(logging.DEBUG):
            logger.exception("Row %d failed.", row_index)
        else:
            logger.info("Row %d failed: %s", row_index, printable(text))  # the report tells it

    def _context(self, request: RolloutRequest) -> RolloutContext:
        tools = self.agent_loop.get_tools(request)
        if not isinstance(tools, list):
            raise ToolValidationError(check_tools(tools, self.agent_loop.get_tools)[0].message)
        if problem := provider_problem(tools):
            place = place_of_function(self.agent_loop.get_tools)
            raise ToolValidationError(f"{problem}{f' ({place})' if place else ''}: {TOOL_REMEDY}")
        self.llm_client.set_tools(tools)
        ctx = _LocalContext(
            request=request,
            tools=tools,
            llm=self.llm_client,  # type: ignore[arg-type]  # stand-ins need not declare chat_completions
            _start_time=time.monotonic(),
            _debug_dir=self.debug_dir,
        )
        ctx.watcher = FinishReasonWatch()
        return ctx

    async def _traced_run(self, ctx: RolloutContext) -> RolloutResult:
        """A run; where there is a trace it holds the request and the result whole, as one of a server does."""
        if not ctx.debug_enabled:
            return await self._run_in_time(ctx)
        start = start_of_trace(self.agent_loop.name, ctx.request)
        tools = [to_jsonable_python(tool, exclude_none=True) for tool in ctx.tools]
        ctx.log_event(TraceEvent.TRACE_START, **start, tools=tools)
        try:
            result = await self._run_in_time(ctx)
        except Exception as error:
            _trace_result(ctx, result_of_exception(ctx.request.rollout_id, ctx, error, self.agent_loop.run))
            raise
        _trace_result(ctx, result_of_return(ctx.request.rollout_id, ctx, result))
        return result

    async def _run_in_time(self, ctx: RolloutContext) -> RolloutResult:
        run = LocalRun(ctx, self.timeout_seconds)
        token = CURRENT_RUN.set(run)
        try:
            async with asyncio.timeout(self.timeout_seconds) as limit:
                result = await run_agent(self.agent_loop.run, ctx)
        except TimeoutError as error:
            if limit.expired():
                raise _RunTimeoutError(f"No result within {self.timeout_seconds:g} s.") from error
            raise
        except RunInterrupted as error:
            raise _RunTimeoutError(str(error)) from error
        except SystemExit as error:
            raise _AgentExitError(f"SystemExit: {error.code}") from error
        finally:
            CURRENT_RUN.reset(token)
        if run.interruption is not None:  # the agent caught it
            raise _RunTimeoutError(run.interruption.message)
        if not hasattr(result, "status"):
            place = place_of_function(self.agent_loop.run)
            raise TypeError(
                f"The agent's run() returned {type(result).__name__}, not a RolloutResult"
                f"{f' ({place})' if place else ''}: end it with 'return ctx.complete(messages, reward=...)'."
            )
        return result

    async def run_batch(
        self,
        rows: Sequence[DatasetRow],
        max_turns: int = 10,
        completion_params: Mapping[str, Any] | None = None,
        on_progress: Callable[[int, int, LocalRunResult], None] | None = None,
        start_index: int = 0,
    ) -> LocalBatchResult:
        """Run ``rows`` one after the other; the first has index ``start_index``.

        ``on_progress`` gets the number of rows done, their total, and each result. A systemic error ends the batch with
        a failed result for its row; other failures do not.
        """
        started_seconds = time.monotonic()
        results: list[LocalRunResult] = []

        async def run_one(job: Job) -> tuple[LocalRunResult, str | None]:
            return await self.run_job(job, max_turns=max_turns, completion_params=completion_params)

        def take(_: Job, result: LocalRunResult) -> None:
            results.append(result)
            if on_progress is not None:
                on_progress(len(results), len(rows), result)

        stops = await drive(RunPlan(start_index).jobs(enumerate(rows, start_index)), run_one, take, concurrency=1)
        return batch_of(results, started_seconds, stops.first_reason)

    async def run_job(self, job: Job, **options: Any) -> tuple[LocalRunResult, str | None]:
        """``run_single`` for the driver: the result, and why no other row would fare better, where that has shown."""
        started_seconds = time.monotonic()
        try:
            return await self.run_single(row=job.row, row_index=job.row_index, **options), None
        except SystemicProviderError as error:
            result = LocalRunResult(
                row_index=job.row_index,
                success=False,
                error=str(error),
                duration_ms=error.duration_ms if error.duration_ms is not None else elapsed_ms(started_seconds),
                token_usage={"total_tokens": error.tokens} if error.tokens else {},
                error_kind=error.failure.value,
            )
            return result, str(error)


def validate_tools(tools: Sequence[Any]) -> None:
    """Refuse ``tools``, schema objects or their JSON, that model providers would.

    Raises:
        ToolValidationError: for the first problem, with the tool's position from 0.
    """
    if (problem := provider_problem(tools)) is not None:
        raise ToolValidationError(problem)


def _text(error: Exception) -> str:
    """The error's own text; of one whose text says too little, its type too."""
    text = text_of(error)
    return described(error, text) if isinstance(error, KeyError) or not text else text


def _kind(error: Exception) -> str:
    if isinstance(error, _RunTimeoutError):
        return ProviderFailure.TIMEOUT.value
    if isinstance(error, _AgentExitError):
        return SystemExit.__name__
    return error.failure.value if isinstance(error, ProviderError) else type(error).__name__


def _trace_result(ctx: RolloutContext, ended: TerminalResult) -> None:
    fields = {name: value for name, value in ended.payload.items() if name != "rollout_id"}
    ctx.log_event(TraceEvent.ROLLOUT_RESULT, **fields)
