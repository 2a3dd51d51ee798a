"""Output for people: Rich with colour on a terminal, the same words in plain text everywhere else.

Two things hold on every path. What is printed cannot drive the terminal: control sequences are stripped from all text,
except colour codes in text given to `Console.print`, which is meant for the caller's own text. And what the stream's
encoding lacks is replaced, never raised. Rich is loaded when it is first of use, by no import.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from osmosis_ai.rollout.core.text import CONTROL, encodable, strip_control

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.padding import PaddingDimensions

__all__ = ["RICH_AVAILABLE", "Console", "console"]

RICH_AVAILABLE = True
"""Rich is a dependency; the name is that of the 0.2 line, where it was not."""

_BOX_CHARACTERS = "╭╮╰╯─│"
_ERROR_STYLE = "bold red"


class Console:
    """Prints to one stream, decorated by Rich when that is a terminal.

    Args:
        file: where to print; ``None`` takes the ``sys.stdout`` of this moment.
        force_terminal: whether ``file`` counts as a terminal; ``None`` asks it.
        no_color: print as to a file, without colour; so does a non-empty ``NO_COLOR`` in the environment.

    A terminal whose encoding has no box characters is printed to as a file is.
    """

    def __init__(
        self, *, file: TextIO | None = None, force_terminal: bool | None = None, no_color: bool = False
    ) -> None:
        self._bind(sys.stdout if file is None else file, force_terminal, no_color)

    def _bind(self, file: TextIO, force_terminal: bool | None, no_color: bool) -> None:
        self._file = file
        self._no_color = no_color or bool(os.environ.get("NO_COLOR"))
        self._is_tty = is_terminal(file) if force_terminal is None else force_terminal
        self._use_rich = self._is_tty and not self._no_color and _has_boxes(file)
        self._rich = _rich_console(file=file, force_terminal=force_terminal) if self._use_rich else None

    def _active_rich(self) -> "RichConsole | None":
        """The Rich console to print on, if any; each public member asks for it before it looks at the stream."""
        return self._rich if self._use_rich else None

    @property
    def is_tty(self) -> bool:
        """Whether the output counts as a terminal."""
        self._active_rich()
        return self._is_tty

    @property
    def use_rich(self) -> bool:
        """Whether Rich decorates what is printed."""
        return self._active_rich() is not None

    def print(self, *args: Any, style: str | None = None, end: str = "\n", **kwargs: Any) -> None:
        """Print the caller's own text, or Rich renderables.

        In Rich mode text is markup and further keywords go to Rich; foreign text comes through `escape`. Text
        with broken markup is printed as it is. Plain mode honours ``sep`` and ``flush`` and ignores the rest.
        """
        if (rich := self._active_rich()) is not None:
            from rich.errors import MarkupError

            kwargs.pop("flush", None)
            values = [_own_text(value, self._file) if isinstance(value, str) else value for value in args]
            try:
                rich.print(*values, style=style, end=end, **kwargs)
            except MarkupError:
                rich.print(*values, style=style, end=end, **{**kwargs, "markup": False})
            return
        sep = kwargs.get("sep")
        text = (" " if sep is None else str(sep)).join(map(str, args))
        self._file.write(_own_text(text, self._file) + end)
        if kwargs.get("flush"):
            self._file.flush()

    def print_error(self, message: str) -> None:
        """Print ``message``, taken literally, on standard error; in bold red on a terminal."""
        self._active_rich()
        text = _foreign_text(message, sys.stderr)
        if is_terminal(sys.stderr) and not self._no_color:
            errors = _rich_console(stderr=True, force_terminal=True)
            errors.print(text, style=_ERROR_STYLE, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stderr.write(text + "\n")

    def separator(self, title: str = "", width: int = 60) -> None:
        """Print a line with ``title``, taken literally, in its middle; ``width``, in columns, is for plain mode."""
        from rich.text import Text

        rich, label = self._active_rich(), Text(_label(title, self._file))
        # Rich would shorten a title to keep a width.
        columns = max(width, label.cell_len + 4 if label else 0)
        rich = rich or _rich_console(file=self._file, force_terminal=False, color_system=None, width=columns)
        rich.rule(label, characters="─" if _has_boxes(self._file) else "-")

    def panel(self, title: str, content: str, *, style: str = "blue", padding: "PaddingDimensions" = (0, 1)) -> None:
        """Print ``content`` in a box under ``title``, both taken literally.

        ``style`` colours the border. ``padding`` is for Rich mode; plain mode leaves two columns on either side.
        """
        rich, heading = self._active_rich(), _label(title, self._file)
        body = _foreign_text(content, self._file).expandtabs()
        if rich is not None:
            from rich.panel import Panel
            from rich.text import Text

            label = Text(heading) if heading else None
            rich.print(Panel(Text(body, overflow="fold"), title=label, border_style=style, padding=padding))
            return
        # By hand: every `osmosis serve` prints one, and all of Rich costs it 6 MB and a tenth of a second.
        from rich.cells import cell_len

        box = list(_BOX_CHARACTERS if _has_boxes(self._file) else "++++-|")
        top_left, top_right, bottom_left, bottom_right, dash, bar = box
        caption = f"{dash} {heading} " if heading else ""
        lines = body.split("\n")
        columns = max(*(cell_len(line) + 4 for line in lines), cell_len(caption) + 1)
        self._file.write(f"{top_left}{caption}{dash * (columns - cell_len(caption))}{top_right}\n")
        for line in lines:
            self._file.write(f"{bar}  {line}{' ' * (columns - 2 - cell_len(line))}{bar}\n")
        self._file.write(f"{bottom_left}{dash * columns}{bottom_right}\n")

    def table(
        self,
        rows: Iterable[tuple[Any, Any]],
        *,
        title: str | None = None,
        headers: Sequence[str] | None = None,
    ) -> None:
        """Print key and value a row, taken literally; the two ``headers`` are for Rich mode."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        rich, heading = self._active_rich(), _label(title or "", self._file)
        cells = [
            (Text(_label(key, self._file)), Text(_foreign_text(value, self._file).expandtabs())) for key, value in rows
        ]
        if rich is not None:
            table = Table(title=Text(heading) if heading else None, box=box.ROUNDED, show_header=bool(headers))
            for header in headers or ("", ""):
                table.add_column(Text(header), overflow="fold")
            for row in cells:
                table.add_row(*row)
            rich.print(table)
            return
        if heading:
            self._file.write(f"\n{heading}:\n")
        key_columns = max((key.cell_len for key, _ in cells), default=0)
        continuation = "\n" + " " * (key_columns + 4)
        for key, value in cells:
            gap = " " * (key_columns - key.cell_len + 2)
            self._file.write(f"  {key.plain}{gap}{value.plain.replace(chr(10), continuation)}\n")

    def run_rich(self, render_fn: "Callable[[RichConsole], Any]") -> bool:
        """Call ``render_fn`` with the Rich console; ``False`` when there is none, or it raises ``ImportError``."""
        rich = self._active_rich()
        if rich is None:
            return False
        try:
            render_fn(rich)
        except ImportError:
            return False
        return True

    def escape(self, text: Any) -> str:
        """Foreign text made fit for `print`: no control sequences, no markup; ``None`` gives ``""``."""
        literal = "" if text is None else strip_control(str(text))
        if self._active_rich() is None:
            return literal
        from rich.markup import escape

        return escape(literal)

    def format_styled(self, text: Any, style: str) -> str:
        """``text``, taken literally, in ``style``: a piece of what is then given to `print`."""
        literal = self.escape(text)
        return literal if self._active_rich() is None else f"[{style}]{literal}[/{style}]"

    def input(self, prompt: str = "", style: str | None = None) -> str:
        """Ask for a line on standard input, after ``prompt``, taken literally."""
        rich = self._active_rich()
        question = _foreign_text(prompt, self._file)
        if rich is None or not style:
            return input(question)
        rich.print(question, style=style, end="", markup=False, highlight=False, soft_wrap=True)
        return input()


class _DefaultConsole(Console):
    """Prints to the ``sys.stdout`` of each call, so that a redirection is followed and no import loads Rich."""

    def __init__(self) -> None:
        self._bound_to: TextIO | None = None

    def _active_rich(self) -> "RichConsole | None":
        if self._bound_to is not sys.stdout:
            self._bound_to = sys.stdout
            self._bind(sys.stdout, None, False)
        return super()._active_rich()


def _rich_console(**options: Any) -> "RichConsole":
    from rich.console import Console as RichConsole

    # Emoji codes are off: ":key:" in a path or a name is text.
    return RichConsole(emoji=False, **options)


def is_terminal(file: TextIO) -> bool:
    """Whether ``file`` is one; what is closed is none."""
    try:
        return file.isatty()
    except (AttributeError, ValueError):  # no such method, or closed
        return False


def _has_boxes(file: TextIO) -> bool:
    return _fit(_BOX_CHARACTERS, file) == _BOX_CHARACTERS


def _own_text(text: str, file: TextIO) -> str:
    return _fit(CONTROL.sub(r"\g<colour>", text), file)


def _foreign_text(text: Any, file: TextIO) -> str:
    return _fit(strip_control(str(text)), file)


def _label(text: Any, file: TextIO) -> str:
    return _foreign_text(text, file).replace("\n", " ").expandtabs()


def _fit(text: str, file: TextIO) -> str:
    encoding = getattr(file, "encoding", None)
    return encodable(text, encoding) if isinstance(encoding, str) else text


console = _DefaultConsole()
