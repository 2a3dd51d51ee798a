"""The interactive debugger: one row at a time, one model call at a time. See ``docs/test-mode.md``.

It stops after every reply, before the agent gets it. Lines are read off the event loop; Ctrl-C cancels the session, end
of input leaves the row and then the session.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext, RolloutResult
from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.schemas import MessageDict
from osmosis_ai.rollout.run.data.dataset import DatasetRow, dataset_row_to_request
from osmosis_ai.rollout.run.errors import ToolValidationError
from osmosis_ai.rollout.run.local_runner import validate_tools
from osmosis_ai.rollout.run.test.edits import EditError, ReplyEdit, parse_edit
from osmosis_ai.rollout.run.test.interactive_client import (
    ABORTED,
    InteractiveLLMClient,
    InteractiveStep,
    StepDecision,
)
from osmosis_ai.rollout.run.test.line_reader import LineReader
from osmosis_ai.rollout.run.test.local_test_runner import DEBUG_DIRECTORY, REQUEST_METADATA, ROLLOUT_ID_PREFIX
from osmosis_ai.rollout.run.test.screens import RESULT_HELP, SELECT_HELP, STEP_HELP, Screens

__all__ = ["InteractiveLLMClient", "InteractiveRunner", "InteractiveStep"]

PROMPT = "> "
STEP_HINT = "[n]ext, [c]ontinue, [m]essages, [t]ools, [q]uit row, [e]dit, [r]ow N, [?] help"
RESULT_HINT = "[m]essages, [Enter] continue"

_NEXT = ("", "n", "next")
_CONTINUE = ("c", "continue")
_MESSAGES = ("m", "messages")
_TOOLS = ("t", "tools")
_QUIT = ("q", "quit", "exit")
_HELP = ("?", "h", "help")
_EDIT = ("e", "edit")
_ROW = ("r", "row")


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
        try:
            self._client.reset_metrics()
            self._client.clear_tools()
            return await self._run(row, row_index, max_turns, completion_params), None
        except InterruptedError as error:
            # The operating system's has a number; ours, from the client, has none.
            return None, ABORTED if error.errno is None else str(error)
        except ToolValidationError as error:
            return None, f"Tool validation error: {error}"
        except Exception as error:  # noqa: BLE001 - whatever an agent raises is shown
            return None, ABORTED if self._client.is_aborted else str(error) or type(error).__name__
        finally:
            self._client.clear_tools()

    async def _run(
        self, row: DatasetRow, row_index: int, max_turns: int, completion_params: Mapping[str, Any] | None
    ) -> RolloutResult:
        request = dataset_row_to_request(
            row,
            row_index,
            max_turns=max_turns,
            completion_params=completion_params,
            rollout_id_prefix=ROLLOUT_ID_PREFIX,
            metadata_overrides=REQUEST_METADATA,
        )
        tools = self.agent_loop.get_tools(request)
        validate_tools(tools)
        self._client.set_tools(tools)
        self._tools = tools
        self._messages = list(request.messages)
        self._seen = len(self._messages)
        self._screens.initial_messages(self._messages)
        self._screens.tools(tools)
        ctx = RolloutContext(
            request=request,
            tools=tools,
            llm=self._client,
            _start_time=time.monotonic(),
            _debug_dir=self.debug_dir,
        )
        try:
            result = await self.agent_loop.run(ctx)
        finally:
            ctx.close_trace()
        if self._client.is_aborted:
            raise InterruptedError(ABORTED)
        if isinstance(result, RolloutResult):
            result = replace(result, final_messages=self._client.with_edits(result.final_messages))
        return result

    def _on_messages(self, messages: list[MessageDict]) -> None:
        self._screens.new_messages(messages, self._seen)
        self._messages = list(messages)
        self._seen = len(messages)
        self._screens.say(f"Sending {len(messages)} messages and {len(self._tools)} tools...", "dim")

    async def _on_step(self, step: InteractiveStep) -> bool | StepDecision:
        self._show(step)
        if self._is_continuing:
            return True
        while True:
            self._screens.say(STEP_HINT, "dim")
            line = await self._line()
            word, argument = _split(line)
            if line is None or word in _QUIT:
                self._screens.say("Leaving this row.", "yellow")
                return False
            if word in _NEXT:
                return True
            if word in _CONTINUE:
                self._screens.say("Continuing to completion...", "dim")
                self._is_continuing = True
                return True
            if word in _EDIT:
                if self._edit(argument, step):
                    return StepDecision.ASK_AGAIN
            elif word in _ROW:
                if self._choose(argument):
                    return False
            elif word in _MESSAGES:
                self._screens.all_messages([*self._messages, step.message or {}])
            elif word in _TOOLS:
                self._screens.tools(self._tools)
            else:
                self._help(line, word, STEP_HELP)

    def _show(self, step: InteractiveStep) -> None:
        message = step.message or {}
        self._screens.reply(step.turn, message, step.finish_reason, [*self._messages, message])

    def _edit(self, text: str, step: InteractiveStep) -> bool:
        """Do what was asked; true if the model has to be asked again."""
        try:
            edit = parse_edit(text, step.message or {}, self._messages)
        except EditError as error:
            self._screens.say(str(error), "red")
            return False
        if isinstance(edit, ReplyEdit):
            step.message = edit.message
            step.tool_calls = edit.message.get("tool_calls")
            step.finish_reason = "tool_calls" if step.tool_calls else "stop"
            self._show(step)
            return False
        self._client.edit_message(edit.index, edit.original, edit.message)
        self._seen = edit.index
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
        if word not in _HELP:
            self._screens.say(f"Unknown command: {line}", "red")
        self._screens.say_all(lines)

    def _range(self) -> str:
        return f"{self._valid_rows.start}-{self._valid_rows.stop - 1}"

    async def _line(self) -> str | None:
        def prompt() -> None:
            self.console.print(PROMPT, style="bold", end="", flush=True)

        line = await self._lines.read_line(prompt, echo=self._screens.say)
        return None if line is None else line.strip()

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
        line = await self._line()
        if line is None:
            self._screens.say()
            return False
        word, argument = _split(line)
        if word in _QUIT:
            return False
        if word in _HELP:
            self._screens.say_all(SELECT_HELP)
        else:
            self._choose(argument if word in _ROW else line)
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
            line = await self._line()
            word, argument = _split(line)
            if line is None or word in (*_NEXT, *_CONTINUE, *_QUIT):
                return
            if word in _MESSAGES:
                self._screens.all_messages(messages)
            elif word in _ROW:
                if self._choose(argument):
                    return
            else:
                self._help(line, word, RESULT_HELP)


def _split(line: str | None) -> tuple[str, str]:
    """The command in lower case, and the rest as it was typed."""
    word, _, rest = (line or "").partition(" ")
    return word.lower(), rest.strip()
