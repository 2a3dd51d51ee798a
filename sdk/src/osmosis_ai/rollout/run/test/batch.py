"""Runs every row of a batch, several at a time, each on a client of its own over shared connections.

What ends goes to the results at once and to the report as numbers; nothing else of it is kept.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.run.data.dataset import DatasetReader, DatasetRow
from osmosis_ai.rollout.run.errors import SystemicProviderError
from osmosis_ai.rollout.run.models.models import for_one_run
from osmosis_ai.rollout.run.models.patience import Gate, PatientClient
from osmosis_ai.rollout.run.runner import LocalRunResult, systemic_failure
from osmosis_ai.rollout.run.test.options import Options
from osmosis_ai.rollout.run.test.record import Record, record_of
from osmosis_ai.rollout.run.test.report import BatchReport
from osmosis_ai.rollout.run.test.results_file import ResultsFile, SlotOf
from osmosis_ai.rollout.run.test.runner import ROLLOUT_ID_PREFIX, LocalTestRunner
from osmosis_ai.rollout.run.window import run_window


@dataclass(frozen=True, slots=True)
class _Job:
    slot: int
    row: DatasetRow
    row_index: int
    repeat: int


class Batch:
    """One batch, run once.

    Args:
        results: where records go; what is there already counts, and is not run again.
        on_record: told of every run that ends now.
    """

    def __init__(
        self,
        agent: RolloutAgentLoop,
        client: Any,
        reader: DatasetReader,
        options: Options,
        report: BatchReport,
        results: ResultsFile | None,
        on_record: Callable[[Record], None],
        debug_dir: str | None = None,
    ) -> None:
        self._agent = agent
        self._client = client
        self._reader = reader
        self._options = options
        self._report = report
        self._results = results
        self._on_record = on_record
        self._debug_dir = debug_dir
        self._gate = Gate()

    def take_earlier_results(self) -> None:
        """Count what an earlier run left."""
        if self._results is None:
            return
        for record in self._results.earlier_records(SlotOf(self._options.offset, self._options.repeat)):
            self._report.add(record)
            self._report.resumed += 1

    async def run(self) -> None:
        """Run what is not there yet; stops early, once those in flight have ended, after a systemic error.

        Raises:
            CLIError: if the results cannot be written.
            DatasetParseError, DatasetValidationError: if the dataset has changed since it was checked.
        """
        started_seconds = time.monotonic()
        try:
            await run_window(self._jobs(), self._run_job, self._options.concurrency)
        finally:
            self._report.duration_ms = (time.monotonic() - started_seconds) * 1000
            self._report.rate_limit_waits = self._gate.waits

    def _jobs(self) -> Iterator[_Job]:
        options = self._options
        slot = 0
        for row_index, row in enumerate(self._reader.iter_rows(options.limit, options.offset), start=options.offset):
            for repeat in range(options.repeat):
                if self._results is None or not self._results.has(slot):
                    yield _Job(slot, row, row_index, repeat)
                slot += 1

    async def _run_job(self, job: _Job) -> bool:
        started_seconds = time.monotonic()
        rollout_id = f"{ROLLOUT_ID_PREFIX}-{job.row_index}" + (f"-{job.repeat}" if self._options.repeat > 1 else "")
        try:
            run = await self._runner().run_single(
                row=job.row,
                row_index=job.row_index,
                max_turns=self._options.max_turns,
                completion_params=self._options.completion_params,
                rollout_id=rollout_id,
            )
        except SystemicProviderError as error:
            run = systemic_failure(job.row_index, error, started_seconds)
            self._report.stop_reason = self._report.stop_reason or str(error)
        self._take(job, run, rollout_id)
        return self._report.stop_reason is None

    def _runner(self) -> LocalTestRunner:
        client = PatientClient(for_one_run(self._client), self._gate)
        return LocalTestRunner(self._agent, client, debug_dir=self._debug_dir, timeout_seconds=self._options.timeout)

    def _take(self, job: _Job, run: LocalRunResult, rollout_id: str) -> None:
        record = record_of(run, job.row, job.repeat, rollout_id)
        if self._results is not None:
            self._results.add(job.slot, record)
        self._report.add(record)
        self._on_record(record)
