"""From dataset rows to rollouts: which row, which repeat, which id."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.run.data.dataset import DatasetReader, dataset_row_to_request
from osmosis_ai.rollout.run.driver import Job, RunPlan
from osmosis_ai.rollout.run.errors import DatasetValidationError
from osmosis_ai.rollout.trainer import defaults

RUN_ID_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """Which rows become rollouts, how often, and with what limits and sampling parameters.

    Ids are ``<prefix>-<run>-<row>-<repeat>``: letters, digits and hyphens, new with each plan.
    """

    reader: DatasetReader
    limit: int | None = None
    offset: int = 0
    repeat: int = 1
    max_turns: int = defaults.MAX_TURNS
    max_tokens_total: int = defaults.MAX_TOKENS_TOTAL
    completion_params: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = "trainer"
    run_id: str = field(default_factory=lambda: secrets.token_hex(RUN_ID_BYTES))

    @property
    def plan(self) -> RunPlan:
        """The runs to make."""
        return RunPlan(self.offset, self.repeat)

    def jobs(self, is_done: Callable[[int], bool] = lambda slot: False) -> Iterator[Job]:
        """All jobs whose slot is not ``is_done``, read from the file as they are asked for.

        Raises:
            DatasetParseError, DatasetValidationError: when the reading reaches something unusable.
        """
        return self.plan.jobs(self.reader.iter_rows(self.limit, self.offset), is_done)

    def request_of(self, job: Job) -> RolloutRequest:
        """The init request of one run."""
        return dataset_row_to_request(
            job.row,
            job.row_index,
            max_turns=self.max_turns,
            max_tokens_total=self.max_tokens_total,
            completion_params=self.completion_params,
            rollout_id=f"{self.prefix}-{self.run_id}-{job.row_index}-{job.repeat}",
        )

    def count(self) -> int:
        """Read everything once, so that all bad rows are told before anything runs; return the number of jobs.

        Raises:
            DatasetValidationError: naming every row that cannot be used, with its line.
        """
        if error := self.reader.check(self.limit, self.offset).error():
            raise DatasetValidationError(error)
        return sum(1 for _ in map(self.request_of, self.jobs()))
