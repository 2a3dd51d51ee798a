"""What the terminal shows while a run goes on: live on a terminal, plain lines elsewhere."""

from collections import Counter
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

BARS = "▁▂▃▄▅▆▇█"
CURVE_COLUMNS = 72


class Display:
    """Takes news of a run. A context manager: the live part is drawn from entry to exit."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._rewards: list[float] = []
        self._outcomes: Counter[str] = Counter()
        self._last: dict[str, Any] | None = None
        self._seconds_left = 0.0
        self._live: Live | None = None
        self._evaluation = ""
        self._played = self._expected = 0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(self._rendered(), console=self._console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """One line that stays."""
        self._console.print(Text(text))

    def begin_evaluation(self, when: str, name: str, mode: str, expected: int) -> None:
        """An evaluation of ``expected`` rollouts begins; ``count`` says how far it is."""
        self._evaluation = f"Evaluating {when} training: {name}, {mode}"
        self._played, self._expected = 0, expected
        self.note(f"{self._evaluation}, {expected} rollouts.")

    def evaluation(self, when: str, name: str, mode: str, summary: dict[str, Any]) -> None:
        """The result of one evaluation."""
        self._expected = 0
        self.note(
            f"{when:>6} {name} ({mode}): reward {_number(summary['reward'])}, tool result right"
            f" {_number(summary['tool_right'])}, {summary['disputed']} where they differ"
            f" ({summary['rewarded']} of {summary['rollouts']} rollouts, {summary['seconds']:.0f} s)"
        )

    def count(self, outcomes: Counter[str]) -> None:
        """The attempts at one rollout, which has ended."""
        self._outcomes += outcomes
        self._played += 1
        if self._live is None and self._expected and self._played % max(1, self._expected // 10) == 0:
            self.note(self._progress())
        self._draw()

    def step(self, record: dict[str, Any], seconds_left: float) -> None:
        """A step is done."""
        self._last, self._seconds_left = record, seconds_left
        if record["reward"] is not None:
            self._rewards.append(record["reward"])
        if self._live is None:
            self.note(self._line(record))
        self._draw()

    def _line(self, record: dict[str, Any]) -> str:
        return (
            f"step {record['step']}: reward {_number(record['reward'])}, tool right {_number(record['tool_right'])},"
            f" {record['seconds']:.1f} s, {record['tokens_per_second']:.0f} tokens/s,"
            f" {self._seconds_left / 60:.1f} min left"
        )

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(self._rendered())

    def _rendered(self) -> RenderableType:
        if self._expected or self._last is None:
            return Panel(Text(f"{self._progress()}\n{self._errors()}"), title="training")
        table = Table.grid(padding=(0, 2))
        train = self._last["train"] or {}
        table.add_row("step", str(self._last["step"]), "time left", f"{self._seconds_left / 60:.1f} min")
        table.add_row("reward", _number(self._last["reward"]), "tool result right", _number(self._last["tool_right"]))
        table.add_row(
            "tokens/s", f"{self._last['tokens_per_second']:.0f}", "seconds a step", f"{self._last['seconds']:.1f}"
        )
        table.add_row("entropy", _number(train.get("entropy")), "gradient norm", _number(train.get("gradient_norm")))
        return Panel(
            Group(table, Text(curve(self._rewards), style="green"), Text(self._errors(), style="dim")),
            title="training",
        )

    def _progress(self) -> str:
        return f"{self._evaluation}: {self._played} of {self._expected}" if self._expected else "..."

    def _errors(self) -> str:
        return "  ".join(f"{outcome} {count}" for outcome, count in sorted(self._outcomes.items()))


def curve(rewards: list[float], columns: int = CURVE_COLUMNS) -> str:
    """Rewards between 0 and 1 as bars, the last ``columns`` of them."""
    return "".join(BARS[min(len(BARS) - 1, max(0, int(reward * len(BARS))))] for reward in rewards[-columns:])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
