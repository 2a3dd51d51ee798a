"""One run of ``osmosis trainer``: a trainer, its server if it is ours, all jobs of a plan, a report.

Whatever ends the run, cancellation included, the server is stopped before this returns.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.run.driver import Job, drive
from osmosis_ai.rollout.run.results.results_file import ResultsFile
from osmosis_ai.rollout.run.train.jobs import JobPlan
from osmosis_ai.rollout.run.train.rollout_report import ReportLine, RolloutReport, record_of
from osmosis_ai.rollout.trainer import defaults
from osmosis_ai.rollout.trainer.server_process import ServerProcess
from osmosis_ai.rollout.trainer.trainer import Trainer
from osmosis_ai.rollout.trainer.vocabulary import Completer, RolloutOutcome, TrainerLimits

OnLine = Callable[[ReportLine, RolloutOutcome], None]


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A server that the session starts and stops."""

    module: str
    """``module:attribute`` of an agent loop, or a directory of MCP tools."""
    log_directory: Path | None = None
    is_mcp: bool = False

    @property
    def agent(self) -> tuple[str, str]:
        """As arguments of ``osmosis serve``."""
        return ("--mcp" if self.is_mcp else "-m"), self.module


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server that runs already."""

    url: str
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What to run, where, and how callbacks come back."""

    plan: JobPlan
    server: OwnServer | ServerAddress
    complete: Completer
    limits: TrainerLimits
    host: str = defaults.CALLBACK_HOST
    port: int = 0
    callback_url: str | None = None
    close: Callable[[], Awaitable[None]] | None = None
    """Awaited when all is over: lets go of what ``complete`` needs."""

    def settings(self) -> dict[str, Any]:
        """All that the results depend on, as JSON; no keys."""
        plan = self.plan
        server = self.server
        return {
            "sdk_version": PACKAGE_VERSION,
            "dataset": str(plan.reader.file_path),
            "module": server.module if isinstance(server, OwnServer) else None,
            "server": server.url if isinstance(server, ServerAddress) else None,
            "limit": plan.limit,
            "offset": plan.offset,
            "repeat": plan.repeat,
            "max_turns": plan.max_turns,
            "max_tokens_total": plan.max_tokens_total,
            "completion_params": dict(plan.completion_params),
            "concurrency": self.limits.concurrency,
            "rollout_timeout_seconds": self.limits.rollout_timeout_seconds,
        }

    async def run(self, report: RolloutReport, on_line: OnLine, results: ResultsFile | None = None) -> None:
        """Run all jobs that ``results`` lacks into it and ``report``; ``on_line`` gets each line when it comes.

        Raises:
            CLIError: if the results cannot be written.
            TrainerError: if the callbacks cannot be served, or the server not started or reached, or ends by itself.
            DatasetParseError, DatasetValidationError: if the dataset has changed since it was counted.
        """
        async with AsyncExitStack() as resources:
            if self.close is not None:
                resources.push_async_callback(self.close)
            if report.ended == report.planned:
                return  # an earlier run had left it all: no server is needed
            own: ServerProcess | None = None
            match self.server:
                case OwnServer() as server:
                    own = await resources.enter_async_context(ServerProcess(server.agent, server.log_directory))
                    address = ServerAddress(own.url, own.api_key)
                case ServerAddress() as address:
                    pass
            trainer = await resources.enter_async_context(self._trainer(address))
            if own is None:
                await trainer.check_server()
            else:
                # Stopped before the trainer is: the server may still have something to tell it.
                resources.push_async_callback(own.stop)
                await own.start(trainer.callback_url)
                await own.wait_until_ready()
            started_seconds = time.monotonic()
            try:
                await self._run_jobs(trainer, own, report, on_line, results)
            finally:
                report.duration_seconds = time.monotonic() - started_seconds
                report.contradictions = trainer.contradictions
                report.late_results = trainer.late_results

    def _trainer(self, address: ServerAddress) -> Trainer:
        return Trainer(
            self.complete,
            server_url=address.url,
            server_api_key=address.api_key,
            host=self.host,
            port=self.port,
            callback_url=self.callback_url,
            limits=self.limits,
        )

    async def _run_jobs(
        self,
        trainer: Trainer,
        own: ServerProcess | None,
        report: RolloutReport,
        on_line: OnLine,
        results: ResultsFile | None,
    ) -> None:
        async def run_one(job: Job) -> tuple[RolloutOutcome, str | None]:
            outcome = await trainer.run_one(self.plan.request_of(job))
            return outcome, outcome.problem if outcome.is_systemic else None

        def take(job: Job, outcome: RolloutOutcome) -> None:
            line = report.add(job.row_index, job.repeat, outcome)
            if results is not None:
                results.add(job.slot, record_of(line, outcome))
            on_line(line, outcome)

        jobs = self.plan.jobs(results.has if results else lambda slot: False)
        running = asyncio.create_task(drive(jobs, run_one, take, concurrency=self.limits.concurrency))
        server_ended = asyncio.create_task(own.wait_for_exit()) if own else None
        try:
            await asyncio.wait(
                {running, server_ended} if server_ended else {running}, return_when=asyncio.FIRST_COMPLETED
            )
            if own and not running.done():
                raise own.why_it_ended()
            report.stop_reason = running.result().first_reason
        finally:
            for task in filter(None, (running, server_ended)):
                task.cancel()
            await asyncio.gather(*filter(None, (running, server_ended)), return_exceptions=True)
