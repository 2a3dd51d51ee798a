"""A live line below the results: how many runs, how fast, how many tokens, what failed, how long still."""

import sys
import time
from typing import TYPE_CHECKING, Self

from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.text import counted, printable
from osmosis_ai.rollout.run.formats import format_number, format_tokens
from osmosis_ai.rollout.run.tally import Tally

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress


MAX_KINDS = 3


class RunProgress:
    """A context manager; ``advance`` after every run. Draws nothing without a ``terminal``."""

    def __init__(self, tally: Tally, terminal: "RichConsole | None", unit: str = "rows") -> None:
        self._tally = tally
        self._unit = unit
        self._progress: Progress | None = None
        if terminal is not None:
            from rich import progress

            columns = progress.BarColumn(bar_width=20), progress.MofNCompleteColumn()
            text = progress.TextColumn("{task.description}")
            self._progress = progress.Progress(*columns, text, console=terminal, transient=True)

    def __enter__(self) -> Self:
        self._tally.started_seconds = time.monotonic()
        if self._progress is not None:
            self._task = self._progress.add_task("", total=self._tally.planned, completed=self._tally.ended)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self) -> None:
        """One more run has ended."""
        if self._progress is None:
            return
        tally = self._tally
        elapsed_seconds = max(time.monotonic() - tally.started_seconds, 1e-9)
        per_second = (tally.ended - tally.resumed) / elapsed_seconds
        parts = [f"{per_second:.1f} {self._unit}/s"]
        if tally.total_tokens:
            parts.append(f"{format_tokens(tally.total_tokens)} tokens")
        if kinds := tally.failures:
            named = ", ".join(f"{printable(kind)} {count}" for kind, count in kinds.most_common(MAX_KINDS))
            parts.append(f"{counted(kinds.total(), 'error')} ({named}{', ...' if len(kinds) > MAX_KINDS else ''})")
        if tally.mean_reward is not None:
            parts.append(f"mean reward {format_number(tally.mean_reward)}")
        if per_second > 0 and (remaining := tally.planned - tally.ended):
            parts.append(f"{_clock(remaining / per_second)} left")
        self._progress.update(self._task, completed=tally.ended, description=", ".join(parts))


def terminal_of(console: Console, shares_stdout: bool) -> "RichConsole | None":
    """The terminal that standard output is, or else standard error; ``None`` if neither is one."""
    terminals: list[RichConsole] = []
    if shares_stdout and console.run_rich(terminals.append):
        return terminals[0]
    if console.is_tty and shares_stdout:
        return None  # a terminal without Rich: the lines alone
    return stderr_terminal()


def stderr_terminal() -> "RichConsole | None":
    """Standard error, if it is a terminal."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console as RichConsole

    return RichConsole(stderr=True, emoji=False)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
