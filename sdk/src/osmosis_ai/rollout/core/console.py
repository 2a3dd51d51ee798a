"""Output for people: Rich on a terminal where it is installed, plain text everywhere else.

Two things hold on every path. What is printed cannot drive the terminal: control sequences are stripped from all text,
except colour codes in text given to `Console.print`, which is meant for the caller's own text. And what the stream's
encoding lacks is replaced, never raised.
"""

import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.padding import PaddingDimensions
    from rich.table import Table

__all__ = ["RICH_AVAILABLE", "Console", "console"]

RICH_AVAILABLE = find_spec("rich") is not None

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36}
_ANSI_CODES = {
    "bold": "1",
    "dim": "2",
    **{name: str(code) for name, code in _COLOURS.items()},
    **{f"bold {name}": f"1;{code}" for name, code in _COLOURS.items()},
}
_ANSI_RESET = "\033[0m"
_ERROR_STYLE = "bold red"

# ECMA-48. A sequence that is cut off loses its introducer, and the rest of it is mere text.
_CONTROL = re.compile(
    r"""
      (?P<colour>\x1b\[[0-9;:]*m)
    | (?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]                                                # CSI
    | (?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x00-\x08\x0a-\x1f\x7f-\x9f]*(?:\x07|\x1b\\|\x9c)  # OSC, DCS, SOS, PM, APC
    | \x1b[ -/]*[0-~]                                                                 # any other escape
    | [\x00-\x08\x0b-\x1f\x7f-\x9f]                                                   # C0 and C1 but tab, newline
    """,
    re.VERBOSE,
)


def strip_control(text: str) -> str:
    """Return ``text`` without terminal control sequences and control characters; newlines and tabs stay.

    For text from a model, a trainer or a dataset, which may otherwise clear the screen, set the title or hide output.
    """
    return _CONTROL.sub("", text)


class _Box(NamedTuple):
    top_left: str
    top_right: str
    bottom_left: str
    bottom_right: str
    horizontal: str
    vertical: str


_ROUNDED_BOX = _Box("╭", "╮", "╰", "╯", "─", "│")
_ASCII_BOX = _Box("+", "+", "+", "+", "-", "|")


class Console:
    """Prints to one stream, decorated when that is a terminal.

    Args:
        file: where to print; ``None`` takes the ``sys.stdout`` of this moment.
        force_terminal: whether ``file`` counts as a terminal; ``None`` asks it.
        no_color: print without Rich and without colour; so does a non-empty ``NO_COLOR`` in the environment.

    Rich is used on a terminal that has its box characters, where Rich is installed and ``no_color`` is not wanted.

    Plain mode knows the styles ``bold``, ``dim``, ``red``, ``green``, ``yellow``, ``blue``, ``magenta``, ``cyan`` and
    ``bold <colour>``; it ignores any other.
    """

    _rich: "RichConsole | None" = None
    _rich_stderr: "RichConsole | None" = None
    _use_rich = False

    def __init__(
        self, *, file: TextIO | None = None, force_terminal: bool | None = None, no_color: bool = False
    ) -> None:
        self._bind(sys.stdout if file is None else file, force_terminal, no_color)

    def _bind(self, file: TextIO, force_terminal: bool | None, no_color: bool) -> None:
        self._file = file
        self._no_color = no_color or bool(os.environ.get("NO_COLOR"))
        self._is_tty = _is_terminal(file) if force_terminal is None else force_terminal
        self._rich = self._rich_stderr = None
        # Rich does not survive a stream whose encoding lacks its lines.
        if RICH_AVAILABLE and self._is_tty and not self._no_color and _can_encode("".join(_ROUNDED_BOX), file):
            self._load_rich(force_terminal)
        self._use_rich = self._rich is not None

    def _load_rich(self, force_terminal: bool | None) -> None:
        try:
            from rich.console import Console as RichConsole
        except ImportError:
            return
        # Emoji codes are off: ":key:" in a path or a name is text.
        self._rich = RichConsole(file=self._file, force_terminal=force_terminal, emoji=False)
        self._rich_stderr = RichConsole(stderr=True, emoji=False)

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
        """Whether Rich does the printing."""
        self._active_rich()
        return self._use_rich

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
        text = (" " if sep is None else str(sep)).join(str(value) for value in args)
        self._write(_own_text(text, self._file), style, end)
        if kwargs.get("flush"):
            self._file.flush()

    def print_error(self, message: str) -> None:
        """Print ``message``, taken literally, on standard error in bold red."""
        rich = self._rich_stderr if self._active_rich() is not None else None
        text = _foreign_text(message, sys.stderr)
        if rich is not None:
            rich.print(text, style=_ERROR_STYLE, markup=False, highlight=False, soft_wrap=True)
            return
        if _is_terminal(sys.stderr) and not self._no_color:
            text = _with_ansi(text, _ERROR_STYLE)
        sys.stderr.write(text + "\n")

    def separator(self, title: str = "", width: int = 60) -> None:
        """Print a line with ``title``, taken literally, in its middle; ``width``, in columns, is for plain mode."""
        rich = self._active_rich()
        text = _one_line(_foreign_text(title, self._file))
        if rich is not None:
            from rich.text import Text

            rich.rule(Text(text))
            return
        dash = self._box().horizontal
        middle = f" {text} " if text else ""
        free = width - _columns(middle)
        left = max(free // 2, 1) if text else 0
        self._write(dash * left + middle + dash * max(free - left, 1), "dim")

    def panel(self, title: str, content: str, *, style: str = "blue", padding: "PaddingDimensions" = (0, 1)) -> None:
        """Print ``content`` in a box under ``title``, both taken literally.

        ``style`` colours the border. ``padding`` is for Rich mode; plain mode leaves two columns on either side.
        """
        rich = self._active_rich()
        heading = _one_line(_foreign_text(title, self._file))
        body = _foreign_text(content, self._file).expandtabs()
        if rich is not None:
            from rich.panel import Panel
            from rich.text import Text

            label = Text(heading) if heading else None
            rich.print(Panel(Text(body, overflow="fold"), title=label, border_style=style, padding=padding))
            return
        box = self._box()
        caption = f"{box.horizontal} {heading} " if heading else ""
        lines = body.split("\n")
        inner = max(*(_columns(line) + 4 for line in lines), _columns(caption) + 1)
        rule = box.horizontal * (inner - _columns(caption))
        edge = self._styled(box.vertical, style)
        self._write(box.top_left + caption + rule + box.top_right, style)
        for line in lines:
            self._write(f"{edge}  {line}{' ' * (inner - 2 - _columns(line))}{edge}")
        self._write(box.bottom_left + box.horizontal * inner + box.bottom_right, style)

    def table(
        self,
        rows: Iterable[tuple[Any, Any]],
        *,
        title: str | None = None,
        headers: Sequence[str] | None = None,
    ) -> None:
        """Print key and value a row, taken literally; the two ``headers`` are for Rich mode."""
        rich = self._active_rich()
        heading = _one_line(_foreign_text(title or "", self._file))
        cells = [
            (_one_line(_foreign_text(key, self._file)), _foreign_text(value, self._file).expandtabs())
            for key, value in rows
        ]
        if rich is not None:
            rich.print(_rich_table(cells, heading, headers))
            return
        if heading:
            self._write(f"\n{heading}:")
        key_columns = max((_columns(key) for key, _ in cells), default=0)
        continuation = "\n" + " " * (key_columns + 4)
        for key, value in cells:
            gap = " " * (key_columns - _columns(key) + 2)
            self._write("  " + key + gap + value.replace("\n", continuation))

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
        if self._active_rich() is not None:
            return f"[{style}]{self.escape(text)}[/{style}]"
        return self._styled(self.escape(text), style)

    def input(self, prompt: str = "", style: str | None = None) -> str:
        """Ask for a line on standard input, after ``prompt``, taken literally."""
        rich = self._active_rich()
        question = _foreign_text(prompt, self._file)
        if rich is not None and style:
            rich.print(question, style=style, end="", markup=False, highlight=False, soft_wrap=True)
            return input()
        return input(self._styled(question, style))

    def _box(self) -> _Box:
        return _ROUNDED_BOX if _can_encode("".join(_ROUNDED_BOX), self._file) else _ASCII_BOX

    def _styled(self, text: str, style: str | None) -> str:
        if not style or not self._is_tty or self._no_color or self._active_rich() is not None:
            return text
        return _with_ansi(text, style)

    def _write(self, text: str, style: str | None = None, end: str = "\n") -> None:
        self._file.write(self._styled(text, style) + end)


class _DefaultConsole(Console):
    """Prints to the ``sys.stdout`` of each call, so that a redirection is followed and no import loads Rich."""

    def __init__(self) -> None:
        self._bound_to: TextIO | None = None

    def _active_rich(self) -> "RichConsole | None":
        if self._bound_to is not sys.stdout:
            self._bound_to = sys.stdout
            self._bind(sys.stdout, None, False)
        return super()._active_rich()


def _rich_table(cells: Iterable[tuple[str, str]], title: str, headers: Sequence[str] | None) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, box=box.ROUNDED, show_header=bool(headers))
    for header in headers or ("", ""):
        table.add_column(Text(header), overflow="fold")
    for key, value in cells:
        table.add_row(Text(key), Text(value))
    return table


def _is_terminal(file: TextIO) -> bool:
    try:
        return file.isatty()
    except (AttributeError, ValueError):  # no such method, or closed
        return False


def _own_text(text: str, file: TextIO) -> str:
    return _encodable(_CONTROL.sub(r"\g<colour>", text), file)


def _foreign_text(text: Any, file: TextIO) -> str:
    return _encodable(strip_control(str(text)), file)


def _can_encode(text: str, file: TextIO) -> bool:
    encoding = getattr(file, "encoding", None)
    if not isinstance(encoding, str):
        return True
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _encodable(text: str, file: TextIO) -> str:
    if _can_encode(text, file):
        return text
    return text.encode(file.encoding, "backslashreplace").decode(file.encoding)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").expandtabs()


def _with_ansi(text: str, style: str) -> str:
    code = _ANSI_CODES.get(style.lower())
    return f"\033[{code}m{text}{_ANSI_RESET}" if code else text


def _columns(text: str) -> int:
    """How many columns a terminal gives ``text``: two for a wide character, none for a combining one (UAX 11)."""
    return len(text) if text.isascii() else sum(map(_character_columns, text))


def _character_columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


console = _DefaultConsole()
