"""A live line below the results: how many runs, how fast, how many tokens, how long still.

Drawn on the terminal that standard output is, or else standard error; nowhere if neither is one.
"""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.run.formats import format_tokens
from osmosis_ai.rollout.run.test.batch_report import BatchReport

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress


class BatchProgress:
    """A context manager; ``advance`` after every run."""

    def __init__(self, console: Console, report: BatchReport, is_shown: bool, shares_stdout: bool) -> None:
        self._report = report
        self._started_seconds = time.monotonic()
        self._already_ended = report.ended
        self._progress: Progress | None = None
        terminal = self._terminal(console, shares_stdout) if is_shown else None
        if terminal is None:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress as RichProgress, TextColumn

        self._progress = RichProgress(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=terminal,
            transient=True,
        )
        self._task = self._progress.add_task("", total=report.planned, completed=report.ended)

    @staticmethod
    def _terminal(console: Console, shares_stdout: bool) -> "RichConsole | None":
        terminals: list[RichConsole] = []
        if shares_stdout and console.run_rich(terminals.append):
            return terminals[0]
        if console.is_tty and shares_stdout:
            return None  # a terminal without Rich: the lines alone
        if not sys.stderr.isatty():
            return None
        from rich.console import Console as StderrConsole

        return StderrConsole(stderr=True, emoji=False)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self) -> None:
        """One more run has ended."""
        if self._progress is None:
            return
        report = self._report
        elapsed_seconds = max(time.monotonic() - self._started_seconds, 1e-9)
        per_second = (report.ended - self._already_ended) / elapsed_seconds
        parts = [f"{per_second:.1f} rows/s", f"{format_tokens(report.total_tokens)} tokens"]
        if report.mean_reward is not None:
            parts.append(f"mean reward {report.mean_reward:.2f}")
        if per_second > 0 and (remaining := report.planned - report.ended):
            parts.append(f"{_clock(remaining / per_second)} left")
        self._progress.update(self._task, completed=report.ended, description=", ".join(parts))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
