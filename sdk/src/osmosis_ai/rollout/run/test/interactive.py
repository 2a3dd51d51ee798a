"""The interactive debugger: one row at a time, one model call at a time. See ``docs/test-mode.md``.

It stops after every reply, before the agent gets it. Lines are read off the event loop; Ctrl-C cancels the session, end
of input leaves the row and then the session.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext, RolloutResult
from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.schemas import MessageDict, RolloutRequest
from osmosis_ai.rollout.core.text import counted
from osmosis_ai.rollout.run.data.dataset import DatasetRow
from osmosis_ai.rollout.run.errors import SystemicProviderError
from osmosis_ai.rollout.run.test.edits import EditError, parse_edit
from osmosis_ai.rollout.run.test.interactive_client import (
    ABORTED,
    InteractiveLLMClient,
    InteractiveStep,
    StepDecision,
)
from osmosis_ai.rollout.run.test.line_reader import LineReader
from osmosis_ai.rollout.run.test.local_test_runner import DEBUG_DIRECTORY, LocalTestRunner
from osmosis_ai.rollout.run.test.screens import RESULT_HELP, SELECT_HELP, STEP_HELP, Screens

__all__ = ["InteractiveLLMClient", "InteractiveRunner", "InteractiveStep"]

PROMPT = "> "
STEP_HINT = "[n]ext, [c]ontinue, [m]essages, [t]ools, [q]uit row, [e]dit, [r]ow N, [?] help"
RESULT_HINT = "[m]essages, [Enter] continue"

# What may be typed in place of a command's name.
_SHORT = {"": "next", "n": "next", "c": "continue", "m": "messages", "t": "tools", "e": "edit", "r": "row"}
_SHORT |= {"q": "quit", "exit": "quit", "?": "help", "h": "help"}


class InteractiveRunner:
    """A session with one agent and one model. ``console`` may be replaced before it starts."""

    def __init__(self, agent_loop: RolloutAgentLoop, llm_client: Any, debug: bool = False) -> None:
        self.agent_loop = agent_loop
        self.llm_client = llm_client
        self.debug = debug
        self.debug_dir: str | None = DEBUG_DIRECTORY if debug else None
        self.console = Console()
        self._lines = LineReader(lambda: self.console.input(PROMPT, style="bold"))
        self._client = InteractiveLLMClient(llm_client, self._on_step, self._on_messages)
        self._tools: Sequence[Any] = ()
        self._messages: list[MessageDict] = []
        self._seen = 0
        self._is_continuing = False
        self._valid_rows = range(0)
        self._wanted_row: int | None = None

    @property
    def _screens(self) -> Screens:
        return Screens(self.console)

    async def run_single_interactive(
        self,
        row: DatasetRow,
        row_index: int,
        max_turns: int = 10,
        completion_params: Mapping[str, Any] | None = None,
    ) -> tuple[RolloutResult | None, str | None]:
        """Step through one row; the result, or a sentence about why there is none."""
        self._is_continuing = False
        self._wanted_row = None
        self._tools = ()
        runner = _Runner(self.agent_loop, self._client, debug_dir=self.debug_dir)
        runner.on_start = self._on_start
        try:
            run = await runner.run_single(row, row_index, max_turns, completion_params)
        except SystemicProviderError as error:
            return None, str(error)
        if self._client.is_aborted:
            return None, ABORTED
        if run.result is None:
            return None, run.error or run.error_kind
        result = run.result
        if isinstance(result, RolloutResult):
            result = replace(result, final_messages=self._client.with_edits(result.final_messages))
        return result, None

    def _on_start(self, ctx: RolloutContext) -> None:
        self._tools = ctx.tools
        self._messages = list(ctx.request.messages)
        self._seen = len(self._messages)
        self._screens.initial_messages(self._messages)
        self._screens.tools(self._tools)

    def _on_messages(self, messages: list[MessageDict]) -> None:
        self._screens.new_messages(messages, self._seen)
        self._messages = list(messages)
        self._seen = len(messages)
        self._screens.say(
            f"Sending {counted(len(messages), 'message')} and {counted(len(self._tools), 'tool')}...", "dim"
        )

    async def _on_step(self, step: InteractiveStep) -> bool | StepDecision:
        self._show(step)
        if self._is_continuing:
            return True
        while True:
            self._screens.say(STEP_HINT, "dim")
            line, word, argument = await self._line()
            if line is None or word == "quit":
                self._screens.say("Leaving this row.", "yellow")
                return False
            if word == "next":
                return True
            if word == "continue":
                self._screens.say("Continuing to completion...", "dim")
                self._is_continuing = True
                return True
            if word == "edit":
                if self._edit(argument, step):
                    return StepDecision.ASK_AGAIN
            elif word == "row":
                if self._choose(argument):
                    return False
            elif word == "messages":
                self._screens.all_messages([*self._messages, step.message or {}])
            elif word == "tools":
                self._screens.tools(self._tools)
            else:
                self._help(line, word, STEP_HELP)

    def _show(self, step: InteractiveStep) -> None:
        message = step.message or {}
        self._screens.reply(step.turn, message, step.finish_reason, [*self._messages, message])

    def _edit(self, text: str, step: InteractiveStep) -> bool:
        """Do what was asked; true if the model has to be asked again."""
        try:
            index, message = parse_edit(text, step.message or {}, self._messages)
        except EditError as error:
            self._screens.say(str(error), "red")
            return False
        if index is None:
            step.message = message
            step.tool_calls = message.get("tool_calls")
            step.finish_reason = "tool_calls" if step.tool_calls else "stop"
            self._show(step)
            return False
        self._client.edit_message(index, self._messages[index], message)
        self._seen = index
        return True

    def _choose(self, text: str) -> bool:
        """Note the row to go to; false if there is none of that number."""
        try:
            row = int(text)
        except ValueError:
            self._screens.say(f"Not a row number: {text or '(nothing)'}", "red")
            return False
        if row not in self._valid_rows:
            self._screens.say(f"Invalid row index: {row}. Valid range: {self._range()}", "red")
            return False
        self._wanted_row = row
        return True

    def _help(self, line: str, word: str, lines: Sequence[str]) -> None:
        if word != "help":
            self._screens.say(f"Unknown command: {line}", "red")
        self._screens.say_all(lines)

    def _range(self) -> str:
        return f"{self._valid_rows.start}-{self._valid_rows.stop - 1}"

    async def _line(self) -> tuple[str | None, str, str]:
        """The next line, ``None`` at the end of input; the command it names, and the rest as it was typed."""

        def prompt() -> None:
            self.console.print(PROMPT, style="bold", end="", flush=True)

        line = await self._lines.read_line(prompt, echo=self._screens.say)
        line = None if line is None else line.strip()
        word, _, rest = (line or "").partition(" ")
        return line, _SHORT.get(word.lower(), word.lower()), rest.strip()

    async def run_interactive_session(
        self,
        rows: Sequence[DatasetRow],
        max_turns: int = 10,
        completion_params: Mapping[str, Any] | None = None,
        initial_row: int | None = None,
        row_offset: int = 0,
    ) -> None:
        """Let the user choose rows until they quit; row numbers are absolute, ``rows`` starts at ``row_offset``."""
        screens = self._screens
        if not rows:
            screens.say("No rows to test.", "red")
            return
        self._valid_rows = range(row_offset, row_offset + len(rows))
        self._wanted_row = None
        if initial_row is not None:
            self._choose(str(initial_row))
        try:
            while True:
                if self._wanted_row is None and not await self._select():
                    break
                if self._wanted_row is not None:
                    row_index = self._wanted_row
                    await self._run_row(rows[row_index - row_offset], row_index, max_turns, completion_params)
        except asyncio.CancelledError:
            screens.say()
            raise
        finally:
            screens.say()
            screens.say("Interactive session ended.", "dim")

    async def _select(self) -> bool:
        """Ask for a row; false to end the session."""
        self._screens.say()
        self._screens.say(f"Select a row to test [{self._range()}] or 'q' to quit:")
        line, word, argument = await self._line()
        if line is None:
            self._screens.say()
            return False
        if word == "quit":
            return False
        if word == "help":
            self._screens.say_all(SELECT_HELP)
        else:
            self._choose(argument if word == "row" else line)
        return True

    async def _run_row(
        self, row: DatasetRow, row_index: int, max_turns: int, completion_params: Mapping[str, Any] | None
    ) -> None:
        self._screens.title(f"Row {row_index}")
        started_seconds = time.monotonic()
        result, error = await self.run_single_interactive(row, row_index, max_turns, completion_params)
        duration_seconds = time.monotonic() - started_seconds
        self._screens.result(result, error, duration_seconds, self._client.get_metrics())
        if error != ABORTED:
            messages = result.final_messages if result is not None else self._messages
            await self._after_result(messages)

    async def _after_result(self, messages: list[MessageDict]) -> None:
        while True:
            self._screens.say(RESULT_HINT, "dim")
            line, word, argument = await self._line()
            if line is None or word in ("next", "continue", "quit"):
                return
            if word == "messages":
                self._screens.all_messages(messages)
            elif word == "row":
                if self._choose(argument):
                    return
            else:
                self._help(line, word, RESULT_HELP)


class _Runner(LocalTestRunner):
    """Tells of a run before it starts, and says nothing of a failure itself."""

    on_start: Callable[[RolloutContext], None]

    def _context(self, request: RolloutRequest) -> RolloutContext:
        ctx = super()._context(request)
        self.on_start(ctx)
        return ctx

    def _tell_of_failure(self, row_index: int, text: str) -> None:
        pass
