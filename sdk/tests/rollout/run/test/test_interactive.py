import asyncio
import io
import logging
import sys
from contextlib import suppress
from io import StringIO
from typing import Any

import pytest
from support.rollouts import ScriptedAgent, tool

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema
from osmosis_ai.rollout.core.tools import create_tool_result
from osmosis_ai.rollout.run.data.dataset import DatasetRow
from osmosis_ai.rollout.run.policies import ArithmeticPolicy
from osmosis_ai.rollout.run.test import InteractiveLLMClient, InteractiveRunner, InteractiveStep

NUMBERS = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]}
ADD = OpenAIFunctionToolSchema.model_validate(tool("add", description="Add [x] numbers", parameters=NUMBERS))


def row(question: str = "What is 1 + 2?") -> DatasetRow:
    return {"ground_truth": "3", "user_prompt": question, "system_prompt": "Be [/b] kind."}


async def calculate(ctx: RolloutContext) -> Any:
    messages = list(ctx.request.messages)
    while True:
        reply = await ctx.chat(messages)
        messages.append(reply.message)
        if not reply.has_tool_calls:
            break
        for call in reply.tool_calls:
            arguments = eval(call["function"]["arguments"])  # noqa: S307 - written by the policy or the test
            messages.append(create_tool_result(call["id"], str(arguments["a"] + arguments["b"])))
    return ctx.complete(messages, reward=float((reply.content or "").endswith("#### 3")))


class Session:
    """A debugger whose input is ``lines``, given as a stand-in for ``sys.stdin``; then input ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: Any = calculate) -> None:
        self._monkeypatch = monkeypatch
        self.agent = ScriptedAgent(run, tools=(ADD,))
        self.runner = InteractiveRunner(self.agent, ArithmeticPolicy())
        self._output = StringIO()
        self.runner.console = Console(file=self._output)

    async def run(self, *lines: str, **options: Any) -> str:
        self._monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        await self.runner.run_interactive_session([row(), row("What is 2 + 2?")], **options)
        return self._output.getvalue()


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    return Session(monkeypatch)


async def test_a_row_is_stepped_through(session: Session) -> None:
    shown = await session.run("0", "n", "", "", "q")
    parts = [
        "Select a row to test [0-1] or 'q' to quit:",
        "Row 0",
        "Initial Messages",
        "[System] Be [/b] kind.",
        "[User] What is 1 + 2?",
        "Available Tools",
        "  • add",
        "    Add [x] numbers",
        "    Parameters: a, b",
        "Sending 2 messages and 1 tool...",
        "Turn 1: LLM Response",
        "[Assistant] ",
        "Tool calls:",
        '  • add({\n      "a": 1,\n      "b": 2\n    })',
        "[n]ext, [c]ontinue, [m]essages, [t]ools, [q]uit",
        "[Tool (add)] 3",
        "Turn 2: LLM Response",
        "The answer is 3.",
        "Finish reason: stop",
        "Result",
        "Status: COMPLETED",
        "Reward: 1.0",
        "Tokens: ",
        "(2 LLM calls)",
        "[m]essages, [Enter] continue",
        "Interactive session ended.",
    ]
    position = 0
    for part in parts:
        position = shown.index(part, position)


async def test_continue_goes_to_the_end_and_messages_shows_them_all(session: Session) -> None:
    shown = await session.run("0", "c", "m", "", "q")
    assert shown.count("[n]ext") == 1
    assert "Turn 2: LLM Response" in shown
    assert "All Messages" in shown
    assert "[4] [Assistant] The answer is 3." in shown


async def test_messages_at_a_step_include_the_reply_on_screen(session: Session) -> None:
    shown = await session.run("0", "m", "q", "q")
    assert "[2] [Assistant] " in shown
    assert "Error: Aborted by user" in shown
    assert "Status: ERROR" in shown


async def test_an_edited_reply_is_what_the_agent_gets(session: Session) -> None:
    shown = await session.run("0", "e The answer is\tmine. #### 3", "n", "m", "", "q")
    assert shown.count("Turn 1: LLM Response") == 2
    assert "Turn 2" not in shown
    assert "Reward: 1.0" in shown
    assert "[2] [Assistant] The answer is\tmine. #### 3" in shown


async def test_an_edited_tool_call_is_what_the_agent_runs(session: Session) -> None:
    shown = await session.run("0", 'e call 1 {"a": 40, "b": 2}', "n", "n", "", "q")
    assert "[Tool (add)] 42" in shown


async def test_an_edited_tool_result_is_what_the_model_sees_from_then_on(session: Session) -> None:
    shown = await session.run("0", "n", "e tool 1 99", "n", "m", "", "q")
    assert shown.count("Turn 2: LLM Response") == 2
    assert "#### 99" in shown
    assert "[3] [Tool (add)] 99" in shown, "the final messages have it too"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("e", "Edit what?"),
        ("e call 2 {}", "The reply has no tool call 2: it has 1."),
        ("e call 1 [", "The arguments of a tool call are a JSON object."),
        ("e tool 1 x", "The conversation has no tool result 1: it has 0."),
        ("row x", "Not a row number: x"),
        ("row 5", "Invalid row index: 5. Valid range: 0-1"),
        ("fly", "Unknown command: fly"),
        ("help", "n/next or Enter"),
    ],
)
async def test_what_cannot_be_done_is_told_and_asked_again(session: Session, command: str, sentence: str) -> None:
    shown = await session.run("0", command, "c", "", "q")
    assert sentence in shown
    assert "Status: COMPLETED" in shown


async def test_another_row_can_be_gone_to_from_anywhere(session: Session) -> None:
    shown = await session.run("row 0", "r 1", "c", "row 0", "c", "", "q")
    assert [line.strip("─ ") for line in shown.splitlines() if "── Row" in line] == ["Row 0", "Row 1", "Row 0"]


async def test_row_numbers_are_those_of_the_file(session: Session) -> None:
    shown = await session.run("0", "11", "c", "", "q", initial_row=3, row_offset=10)
    assert "Invalid row index: 3. Valid range: 10-11" in shown
    assert "Invalid row index: 0. Valid range: 10-11" in shown
    assert session.agent.runs[0].request.metadata["row_index"] == 11


async def test_a_first_row_runs_at_once(session: Session) -> None:
    shown = await session.run("c", "", "q", initial_row=1)
    assert shown.index("Row 1") < shown.index("Select a row")


@pytest.mark.parametrize("lines", [(), ("0",), ("0", "c")])
async def test_the_end_of_input_leaves_cleanly_anywhere(session: Session, lines: tuple[str, ...]) -> None:
    assert (await session.run(*lines)).endswith("Interactive session ended.\n")


async def test_an_agent_that_catches_everything_cannot_swallow_the_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    async def careless(ctx: RolloutContext) -> Any:
        for _ in range(3):
            with suppress(Exception):
                await ctx.chat(list(ctx.request.messages))
        return ctx.complete([])

    session = Session(monkeypatch, careless)
    shown = await session.run("0", "q", "q")
    assert "Error: Aborted by user" in shown
    assert shown.count("LLM Response") == 1


async def test_what_the_agent_raises_is_shown_and_not_logged_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(ctx: RolloutContext) -> Any:
        raise ValueError("[/x] bad \x1b[2J")

    caplog.set_level(logging.INFO)
    shown = await Session(monkeypatch, fail).run("0", "", "q")
    assert "Error: [/x] bad " in shown
    assert "\x1b" not in shown
    assert "failed" not in caplog.text


async def test_an_interrupted_system_call_is_no_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(ctx: RolloutContext) -> Any:
        raise InterruptedError(4, "Interrupted system call")

    assert "Error: [Errno 4] Interrupted system call" in await Session(monkeypatch, fail).run("0", "", "q")


async def test_a_cancelled_session_says_so_and_ends(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = asyncio.Event()

    async def hang(ctx: RolloutContext) -> Any:
        waiting.set()
        await asyncio.Event().wait()

    session.agent.script = hang
    running = asyncio.create_task(session.run("0"))
    await waiting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert session._output.getvalue().endswith("Interactive session ended.\n")


class TestClient:
    class Model(ArithmeticPolicy):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[Any] = []

        async def chat_completions(self, messages: list[dict[str, Any]], **kwargs: Any) -> CompletionsResult:
            self.asked.append(messages)
            return await super().chat_completions(messages, **kwargs)

    async def test_plain_callbacks_are_told_of_each_step(self) -> None:
        steps: list[InteractiveStep] = []
        told: list[Any] = []
        model = self.Model()

        def go_on(step: InteractiveStep) -> bool:
            steps.append(step)
            return True

        client = InteractiveLLMClient(model, go_on, told.append)
        messages = [{"role": "user", "content": "hi"}]
        result = await client.chat_completions(messages)
        await client.chat_completions(messages)
        assert [(step.turn, step.step_type) for step in steps] == [(1, "llm_response"), (2, "llm_response")]
        assert steps[0].message == result.message
        assert told[0] is messages
        assert model.asked[0] is messages

    async def test_false_aborts_this_call_and_all_others_until_a_reset(self) -> None:
        client = InteractiveLLMClient(self.Model(), lambda step: step.turn > 1)
        for _ in range(2):
            with pytest.raises(InterruptedError, match="Aborted by user"):
                await client.chat_completions([])
        assert client.get_metrics().num_llm_calls == 1
        client.reset_metrics()
        assert not client.is_aborted
