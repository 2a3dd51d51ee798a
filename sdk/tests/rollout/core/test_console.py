"""The console on terminals and elsewhere: what is shown, what never reaches the terminal, and what never fails."""

import io
import os
import pty
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest

from osmosis_ai.rollout.core.console import Console, console

ANSI = re.compile(r"\x1b\[[0-9;]*m")
HOSTILE = "safe\x1b[2J\x1b]0;title\x07\x9b1A\rtext\x08"


@pytest.fixture(autouse=True)
def colour_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture(params=["file", "terminal without colour", "terminal"])
def any_console(request: pytest.FixtureRequest) -> Console:
    no_color = request.param == "terminal without colour"
    return Console(file=io.StringIO(), force_terminal=request.param != "file", no_color=no_color)


def rich_terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True)


def plain() -> Console:
    return Console(file=io.StringIO())


def shown(used: Console) -> str:
    """What was printed."""
    assert isinstance(used._file, io.StringIO)
    return used._file.getvalue()


def seen(used: Console) -> str:
    """What was printed, without colour."""
    return ANSI.sub("", shown(used))


def columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


class TestWhereItPrints:
    def test_rich_is_used_on_a_terminal_only(self) -> None:
        assert rich_terminal().use_rich
        assert rich_terminal().is_tty
        assert not plain().use_rich
        assert not plain().is_tty
        assert not Console(file=io.StringIO(), force_terminal=False).is_tty

    @pytest.mark.parametrize(("no_color", "variable"), [(True, None), (False, "1")])
    def test_no_color_turns_rich_and_colour_off(
        self, monkeypatch: pytest.MonkeyPatch, no_color: bool, variable: str | None
    ) -> None:
        if variable:
            monkeypatch.setenv("NO_COLOR", variable)
        used = Console(file=io.StringIO(), force_terminal=True, no_color=no_color)
        used.print("text", used.format_styled("more", "red"), style="green")
        used.panel("title", "content")
        used.separator()
        assert not used.use_rich
        assert "\x1b" not in shown(used)

    def test_an_empty_no_color_means_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_COLOR", "")
        assert rich_terminal().use_rich

    def test_a_stream_that_is_no_terminal_or_cannot_say_is_plain(self) -> None:
        closed = io.StringIO()
        closed.close()
        assert not Console(file=closed).is_tty

    def test_stdout_is_taken_at_construction(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdout", first)
        used = Console()
        monkeypatch.setattr(sys, "stdout", second)
        used.print("here")
        assert (first.getvalue(), second.getvalue()) == ("here\n", "")

    def test_the_default_console_follows_stdout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        streams = [io.StringIO(), io.StringIO()]
        for number, stream in enumerate(streams):
            monkeypatch.setattr(sys, "stdout", stream)
            console.print(f"line {number}")
            console.panel(f"panel {number}", "content")
            assert not console.is_tty
        for number, stream in enumerate(streams):
            assert stream.getvalue().startswith(f"line {number}\n╭─ panel {number} ")

    def test_on_a_real_terminal_rich_loads_on_first_use_of_the_default_console(self) -> None:
        output = run_on_terminal(
            "import sys\n"
            "from osmosis_ai.rollout.core.console import console\n"
            "print('loaded at import:', 'rich.console' in sys.modules)\n"
            "print('used:', console.use_rich, 'loaded:', 'rich.console' in sys.modules)\n"
            "console.panel('Title', 'with [brackets]')\n"
        )
        assert "loaded at import: False" in output
        assert "used: True loaded: True" in output
        assert "with [brackets]" in output

    def test_text_and_panels_off_a_terminal_load_no_rich(self) -> None:
        code = (
            "import sys\n"
            "from osmosis_ai.rollout.core.console import Console, console\n"
            "Console().print('a', style='red'); console.print(console.escape('b')); console.print_error('e')\n"
            "console.panel('t', 'c')\n"
            "print('rich.console' in sys.modules, 'rich.panel' in sys.modules)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "False False"


def run_on_terminal(code: str) -> str:
    """Run ``code`` with its standard output on a pseudo terminal; return what it printed, without colour."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        chunks = []
        while chunk := read_or_end(ours):
            chunks.append(chunk)
        process.wait()
    os.close(ours)
    assert process.returncode == 0
    return ANSI.sub("", b"".join(chunks).decode())


def read_or_end(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # Linux reports the end of a terminal as an I/O error
        return b""


class TestPrint:
    def test_plain_mode_prints_like_print(self) -> None:
        used = plain()
        used.print("a", 1, None, sep="-", end="!\n", flush=True)
        used.print()
        used.print("[bold]x[/bold]", markup=False, highlight=False, justify="left", overflow="fold", soft_wrap=True)
        assert shown(used) == "a-1-None!\n\n[bold]x[/bold]\n"

    def test_a_style_means_nothing_off_a_terminal(self) -> None:
        used = plain()
        used.print("text", used.format_styled("more", "red"), style="green")
        assert shown(used) == "text more\n"

    def test_rich_mode_renders_markup_and_renderables(self) -> None:
        from rich.text import Text

        used = rich_terminal()
        used.print("[green]go[/green]", Text("[as is]"), flush=True)
        assert shown(used) == "\x1b[32mgo\x1b[0m [as is]\n"

    def test_broken_markup_is_printed_as_it_is(self) -> None:
        used = rich_terminal()
        used.print("error: [/x] was closed", highlight=False)
        assert shown(used) == "error: [/x] was closed\n"

    def test_control_sequences_are_removed_but_the_callers_colours_stay(self, any_console: Console) -> None:
        any_console.print(any_console.format_styled("name", "red") + HOSTILE, highlight=False)
        assert seen(any_console) == "namesafetext\n"


class TestForeignText:
    """Brackets, emoji codes and control sequences in names and messages, through every method that takes text."""

    @pytest.mark.parametrize("text", ["a [x] b", "[/x]", ":key:", "[bold]not[/bold]", "back\\slash [x]"])
    @pytest.mark.parametrize(
        "show",
        [
            lambda used, text: used.separator(text),
            lambda used, text: used.panel(text, "content"),
            lambda used, text: used.panel("title", text),
            lambda used, text: used.table([(text, "value")]),
            lambda used, text: used.table([("key", text)]),
            lambda used, text: used.table([("key", "value")], title=text),
            lambda used, text: used.print(used.escape(text)),
            lambda used, text: used.print(used.format_styled(text, "bold")),
        ],
        ids=["separator", "panel title", "panel", "table key", "table value", "table title", "escape", "styled"],
    )
    def test_is_shown_literally_and_harmless(
        self, any_console: Console, show: Callable[[Console, str], None], text: str
    ) -> None:
        show(any_console, text + HOSTILE)
        expected = text + "safetext"
        assert "".join(expected.split()) in "".join(seen(any_console).split())  # Rich wraps a title
        assert not set("\x07\x08\r\x9b") & set(shown(any_console))

    def test_is_shown_literally_in_rich_headers(self) -> None:
        used = rich_terminal()
        used.table([("k", "v")], headers=("[a]", "[/b]"))
        assert "[a]" in seen(used)
        assert "[/b]" in seen(used)

    def test_is_escaped_for_markup_in_rich_mode(self) -> None:
        assert rich_terminal().escape("[x]") == r"\[x]"
        assert rich_terminal().format_styled("[x]", "bold") == r"[bold]\[x][/bold]"

    def test_needs_no_escaping_in_plain_mode(self) -> None:
        assert plain().escape("[x]") == "[x]"
        assert plain().format_styled("[t]", "cyan") == "[t]"

    def test_may_be_none_or_any_object(self, any_console: Console) -> None:
        assert any_console.escape(None) == ""
        assert any_console.escape(7) == "7"

    def test_errors_are_literal_too(self, any_console: Console, capsys: pytest.CaptureFixture[str]) -> None:
        any_console.print_error("Error: [/x] " + HOSTILE + " and more" * 20)
        captured = capsys.readouterr()
        assert ANSI.sub("", captured.err) == "Error: [/x] safetext" + " and more" * 20 + "\n"
        assert captured.out == shown(any_console) == ""


class TestErrors:
    def test_go_to_the_stderr_of_the_moment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        used = plain()
        late = io.StringIO()
        monkeypatch.setattr(sys, "stderr", late)
        used.print_error("late")
        assert late.getvalue() == "late\n"

    @pytest.mark.parametrize(("no_color", "expected"), [(False, "\033[1;31mE\033[0m\n"), (True, "E\n")])
    def test_are_bold_red_when_stderr_is_a_terminal(
        self, monkeypatch: pytest.MonkeyPatch, no_color: bool, expected: str
    ) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        Console(file=io.StringIO(), no_color=no_color).print_error("E")
        assert terminal.getvalue() == expected


class TestLayout:
    def test_a_panel_is_a_closed_box(self) -> None:
        used = plain()
        used.panel("RolloutServer", "Agent: calculator\nAddress: 0.0.0.0:9000")
        assert shown(used).splitlines() == [
            "╭─ RolloutServer ─────────╮",
            "│  Agent: calculator      │",
            "│  Address: 0.0.0.0:9000  │",
            "╰─────────────────────────╯",
        ]

    @pytest.mark.parametrize("title", ["", "T", "A title much longer than what is below it", "題名", "two\nlines"])
    @pytest.mark.parametrize("content", ["", "x", "短い\nlonger line", "tab\tinside", "e\N{COMBINING ACUTE ACCENT}"])
    def test_all_lines_of_a_panel_are_equally_wide(self, title: str, content: str) -> None:
        used = plain()
        used.panel(title, content)
        lines = [unicodedata.normalize("NFC", line) for line in shown(used).splitlines()]
        assert len({columns(line) for line in lines}) == 1
        assert len(lines) == 2 + len(content.split("\n"))

    def test_a_panel_border_is_coloured_and_its_content_is_not(self) -> None:
        used = rich_terminal()
        used.panel("", "x", style="green")
        assert re.match("\x1b\\[32m│\x1b\\[0m x +\x1b", shown(used).splitlines()[1])

    def test_a_separator_is_as_wide_as_asked_with_its_title_in_the_middle(self) -> None:
        used = plain()
        used.separator()
        used.separator("mid", width=11)
        used.separator("日本", width=12)
        used.separator("much too long", width=5)
        assert shown(used).splitlines() == ["─" * 60, "─── mid ───", "─── 日本 ───", "─ much too long ─"]

    def test_table_values_line_up(self) -> None:
        used = plain()
        used.table([("Agent:", "calc"), ("日本:", "two\nlines"), ("n", 3)], title="Status", headers=("not", "shown"))
        assert shown(used).splitlines() == [
            "",
            "Status:",
            "  Agent:  calc",
            "  日本:   two",
            "          lines",
            "  n       3",
        ]

    def test_an_empty_table_prints_nothing(self) -> None:
        used = plain()
        used.table([])
        assert shown(used) == ""

    def test_rich_layout_loses_no_text(self) -> None:
        used = rich_terminal()
        path = "/a/path/without/spaces" * 10
        used.panel("Title", path, padding=(1, 2))
        used.table([("key", path)], title="Table", headers=("K", "V"))
        used.separator("rule")
        letters = re.sub(r"[^a-zA-Z/]", "", seen(used))
        assert letters.count(path) == 2


class TestRunRich:
    def test_hands_over_the_rich_console(self) -> None:
        used = rich_terminal()
        given_to: list[Any] = []
        assert used.run_rich(given_to.append) is True
        assert given_to == [used._rich]

    def test_is_false_without_rich_and_calls_nothing(self) -> None:
        by_hand = plain()
        by_hand._use_rich = True
        for used in (plain(), by_hand):
            assert used.run_rich(lambda _: pytest.fail("called")) is False

    def test_an_import_error_means_no_and_other_errors_pass(self) -> None:
        def raising(error: Exception) -> Callable[[Any], None]:
            def render(_: Any) -> None:
                raise error

            return render

        assert rich_terminal().run_rich(raising(ImportError("rich.table"))) is False
        with pytest.raises(ZeroDivisionError):
            rich_terminal().run_rich(raising(ZeroDivisionError()))

    def test_rich_can_be_put_in_by_hand(self) -> None:
        class Recorder:
            def __init__(self) -> None:
                self.printed: list[tuple[Any, ...]] = []

            def print(self, *values: Any, **options: Any) -> None:
                self.printed.append((values, options))

        used, recorder = plain(), Recorder()
        used._use_rich = True
        used._rich = recorder  # type: ignore[assignment]  # the documented way to stand in for Rich
        used.print("text", markup=False)
        assert recorder.printed == [(("text",), {"style": None, "end": "\n", "markup": False})]


class TestInput:
    def test_reads_a_line_after_the_prompt(
        self, any_console: Console, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("yes\nno\n"))
        assert any_console.input("Go on? [y/N] " + HOSTILE, style="bold") == "yes"
        assert any_console.input("Sure? ") == "no"
        asked = seen(any_console) + ANSI.sub("", capsys.readouterr().out)
        assert asked == "Go on? [y/N] safetextSure? "
