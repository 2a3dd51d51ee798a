"""A live line below the results: how many runs, how fast, how many tokens, what failed, how long still."""

import sys
import time
from typing import TYPE_CHECKING, Self

from osmosis_ai.rollout.core.console import Console, is_terminal
from osmosis_ai.rollout.core.text import counted, printable
from osmosis_ai.rollout.run.formats import format_number, format_rate, format_tokens
from osmosis_ai.rollout.run.tally import Tally

if TYPE_CHECKING:
    from rich.console import Console as RichConsole, ConsoleOptions, RenderResult

MAX_KINDS = 3
BAR_COLUMNS = 20
DRAWN_PER_SECOND = 10


class RunProgress:
    """A context manager; ``advance`` after every run. Draws nothing without a ``terminal``."""

    def __init__(self, tally: Tally, terminal: "RichConsole | None", unit: str = "rows") -> None:
        self._tally = tally
        self._unit = unit
        self._terminal = terminal
        self._counted: list[str] = []

    def __enter__(self) -> Self:
        self._tally.started_seconds = time.monotonic()
        if self._terminal is not None:
            from rich.live import Live

            self._live = Live(
                self,
                console=self._terminal,
                refresh_per_second=DRAWN_PER_SECOND,
                transient=True,
                # What an agent prints moves above the line; what goes to a file stays what goes to a file.
                redirect_stdout=is_terminal(sys.stdout),
                redirect_stderr=is_terminal(sys.stderr),
            )
            self.advance()
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal is not None:
            self._live.stop()

    def advance(self) -> None:
        """One more run has ended."""
        # Counted here and not where it is drawn: that is a thread of its own.
        tally, parts = self._tally, list[str]()
        if kinds := tally.failures:
            named = ", ".join(f"{printable(kind)} {count}" for kind, count in kinds.most_common(MAX_KINDS))
            more = ", ..." if len(kinds) > MAX_KINDS else ""
            parts.append(f"{counted(kinds.total(), 'error')} ({named}{more})")
        if tally.mean_reward is not None:
            parts.append(f"mean reward {format_number(tally.mean_reward)}")
        if tally.total_tokens:
            parts.append(f"{format_tokens(tally.total_tokens)} tokens")
        self._counted = parts

    def __rich_console__(self, console: "RichConsole", options: "ConsoleOptions") -> "RenderResult":
        """As it is now: while nothing ends, the rate falls. It has as many lines as it takes, and nothing is cut."""
        from rich.constrain import Constrain
        from rich.text import Text

        tally = self._tally
        elapsed_seconds = max(time.monotonic() - tally.started_seconds, 1e-9)
        ended_now, remaining = tally.ended - tally.resumed, tally.planned - tally.ended
        if ended_now:
            pace = [format_rate(ended_now / elapsed_seconds, self._unit)]
            pace += [f"{_clock(remaining * elapsed_seconds / ended_now)} left"] if remaining else []
        else:
            pace = [f"{_clock(elapsed_seconds)} so far"]
        full, empty = "=-" if options.ascii_only else "━─"
        done = BAR_COLUMNS * tally.ended // max(tally.planned, 1)
        bar = (full * done, "bar.complete"), (empty * (BAR_COLUMNS - done), "bar.back")
        told = f" {tally.ended}/{tally.planned} {', '.join([*pace, *self._counted])}"
        # Also beside lines that are printed not to be wrapped.
        line = Text.assemble(*bar, told, no_wrap=False, overflow="fold")
        # Room for the ^C of the terminal, which would begin a line of which nobody knows.
        yield Constrain(line, options.max_width - len("^C"))


def terminal_of(console: Console, shares_stdout: bool) -> "RichConsole | None":
    """The terminal that standard output is, or else standard error; ``None`` if there a line cannot change."""
    from rich.console import Console as RichConsole

    terminals: list[RichConsole] = []
    if shares_stdout and console.is_tty:
        console.run_rich(terminals.append)
    elif is_terminal(sys.stderr):
        terminals.append(RichConsole(stderr=True, emoji=False))
    return next((terminal for terminal in terminals if not terminal.is_dumb_terminal), None)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
