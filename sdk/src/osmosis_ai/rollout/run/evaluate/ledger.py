"""The runs that an evaluation is to make, and those it has made."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.run.evaluate.types import BASELINE, EvalRowResult, EvalRunResult

if TYPE_CHECKING:
    from osmosis_ai.rollout.run.data.dataset import DatasetRow

ProgressCallback = Callable[[int, int, EvalRunResult], Any]
"""Gets the number of runs made, their total, and the run just made."""


@dataclass(frozen=True, slots=True)
class Item:
    """One run to make."""

    row: "DatasetRow"
    row_index: int
    run_index: int
    tag: str | None


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What every run is made with."""

    max_turns: int
    completion_params: Mapping[str, Any] | None


class Ledger:
    """The runs made, in the order of the dataset whatever the order they ended in."""

    def __init__(self, total: int, on_progress: ProgressCallback | None) -> None:
        self.stop_reason: str | None = None
        self._total = total
        self._on_progress = on_progress
        self._runs: list[EvalRunResult] = []

    def record(self, run: EvalRunResult) -> None:
        """Take one run; its conversation is for ``on_progress`` only."""
        self._runs.append(run)
        if self._on_progress is not None:
            self._on_progress(len(self._runs), self._total, run)
        run.final_messages = None

    def rows(self) -> list[EvalRowResult]:
        """The runs by row; primary before baseline, then in the order of their numbers."""
        rows: dict[int, EvalRowResult] = {}
        for run in sorted(self._runs, key=lambda run: (run.row_index or 0, run.model_tag == BASELINE, run.run_index)):
            index = run.row_index or 0
            rows.setdefault(index, EvalRowResult(index)).runs.append(run)
        return list(rows.values())
