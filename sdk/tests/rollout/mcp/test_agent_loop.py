"""The agent loop over MCP tools: what it offers, what the model is told, and how a rollout ends."""

import asyncio
import base64
import json
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from fastmcp import FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.tools import ToolResult
from fastmcp.utilities.types import Image
from pydantic import BaseModel
from support.mcp_agents import (
    CALCULATOR,
    QUESTION,
    OldServer,
    ScriptedPolicy,
    answer_to,
    answers_to,
    calling,
    context_for,
    old_tool,
    run,
    saying,
    tool_result,
)

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.exceptions import ToolExecutionError
from osmosis_ai.rollout.core.schemas import RolloutStatus
from osmosis_ai.rollout.core.validator import validate_agent_loop
from osmosis_ai.rollout.mcp import MCPAgentLoop
from osmosis_ai.rollout.mcp.agent_loop import load_mcp_agent


@pytest.fixture
def calculator() -> MCPAgentLoop:
    return load_mcp_agent(CALCULATOR)


def names(loop: MCPAgentLoop) -> list[str]:
    return [tool.function.name for tool in loop.get_default_tools()]


class TestAnAgentLoop:
    def test_is_named_as_asked(self) -> None:
        assert MCPAgentLoop.name == "mcp_agent"
        assert MCPAgentLoop(OldServer()).name == "mcp_agent"
        assert MCPAgentLoop(OldServer(), "mine").name == "mine"

    def test_of_a_directory_is_one_like_any_other(self, calculator: MCPAgentLoop) -> None:
        assert isinstance(calculator, RolloutAgentLoop)
        validation = validate_agent_loop(calculator)
        assert (validation.errors, validation.warnings, validation.tool_count) == ([], [], 4)

    def test_gives_a_fresh_list_of_its_tools(self, calculator: MCPAgentLoop) -> None:
        calculator.get_default_tools().clear()
        calculator.get_tools(context_for(calculator, ScriptedPolicy()).request).clear()
        assert names(calculator) == ["add", "subtract", "multiply", "divide"]

    def test_leaves_out_a_tool_it_cannot_describe_and_says_so(self, caplog: pytest.LogCaptureFixture) -> None:
        broken = {"type": "object", "properties": {"x": {"$ref": "#/$defs/Missing"}}}
        loop = MCPAgentLoop(OldServer(old_tool("broken", broken), old_tool("sound"), old_tool(" ")))
        assert names(loop) == ["sound"]
        assert "MCP tool 'broken' is left out: the reference '#/$defs/Missing' points to nothing" in caplog.text
        assert "MCP tool ' ' is left out" in caplog.text

    def test_offers_the_first_of_two_tools_of_one_name(self, caplog: pytest.LogCaptureFixture) -> None:
        server = OldServer(old_tool("add"))
        server._tool_manager._tools["again"] = old_tool("add")
        assert names(MCPAgentLoop(server)) == ["add"]
        assert "MCP tool 'add' is left out: another tool has its name" in caplog.text

    @pytest.mark.parametrize(
        ("name", "offered"),
        [
            ("a-b", "a-b"),
            ("files.read", "files_read"),
            ("files/read", "files_read"),
            ("3d", "_3d"),
            ("größe", "gr__e"),
            ("a" * 70, "a" * 64),
            ("add\n", "add_"),
        ],
    )
    async def test_offers_a_tool_under_a_name_that_providers_take(self, name: str, offered: str) -> None:
        server = OldServer(old_tool(name), results={name: tool_result(None, "called")})
        loop = MCPAgentLoop(server)
        assert names(loop) == [offered]
        assert await answer_to(loop, offered) == "called"
        assert server.calls == [(name, {})]

    async def test_keeps_apart_tools_whose_names_become_one(self) -> None:
        results = {name: tool_result(None, name) for name in ("a.b", "a_b", "a/b")}
        loop = MCPAgentLoop(OldServer(*map(old_tool, results), results=results))
        assert names(loop) == ["a_b_2", "a_b", "a_b_3"]
        assert await answers_to(loop, ("a_b", "{}"), ("a_b_2", "{}"), ("a_b_3", "{}")) == ["a_b", "a.b", "a/b"]

    @pytest.mark.parametrize("seconds", [0, -1, float("nan")])
    def test_takes_no_senseless_time_limit(self, seconds: float) -> None:
        with pytest.raises(ValueError, match="tool_timeout_seconds must be above 0"):
            MCPAgentLoop(OldServer(), tool_timeout_seconds=seconds)


class TestARollout:
    async def test_goes_on_until_the_model_answers_without_a_call(self, calculator: MCPAgentLoop) -> None:
        replies = [calling(("add", '{"a": 3, "b": 4}')), calling(("divide", '{"a": 7, "b": 2}')), saying("#### 3.5")]
        policy = ScriptedPolicy(*replies)
        result = await run(calculator, policy)
        assert (result.status, result.finish_reason, result.reward) == (RolloutStatus.COMPLETED, "stop", None)
        assert result.final_messages == [
            QUESTION,
            replies[0],
            {"role": "tool", "content": "7.0", "tool_call_id": "call-1"},
            replies[1],
            {"role": "tool", "content": "3.5", "tool_call_id": "call-1"},
            replies[2],
        ]
        assert result.metrics is not None
        assert (result.metrics.num_llm_calls, result.metrics.num_tool_calls) == (3, 2)
        assert result.metrics.tool_latency_ms > 0

    async def test_passes_on_every_sampling_field(self, calculator: MCPAgentLoop) -> None:
        policy = ScriptedPolicy(saying("done"))
        await run(calculator, policy)
        assert policy.calls == [{"messages": [QUESTION], "temperature": 0.5, "top_k": 40}]

    @pytest.mark.parametrize(("given", "finish_reason"), [("length", "length"), ("stop", "stop"), ("", "stop")])
    async def test_ends_with_the_reason_of_the_model(
        self, given: str, finish_reason: str, calculator: MCPAgentLoop
    ) -> None:
        result = await run(calculator, ScriptedPolicy(saying("cut o"), finish_reason=given))
        assert result.finish_reason == finish_reason

    async def test_ends_after_max_turns(self, calculator: MCPAgentLoop) -> None:
        policy = ScriptedPolicy(calling(("add", '{"a": 1, "b": 1}')))
        result = await run(calculator, policy, max_turns=3)
        assert (result.status, result.finish_reason) == (RolloutStatus.COMPLETED, "max_turns")
        assert len(policy.calls) == 3
        assert result.final_messages[-1]["role"] == "tool"

    async def test_without_turns_makes_no_call(self, calculator: MCPAgentLoop) -> None:
        policy = ScriptedPolicy(saying("never"))
        context = context_for(calculator, policy)
        context.request.max_turns = 0
        result = await calculator.run(context)
        assert (result.finish_reason, result.final_messages, policy.calls) == ("max_turns", [QUESTION], [])

    async def test_fails_when_the_trainer_does(self, calculator: MCPAgentLoop) -> None:
        class Unreachable(ScriptedPolicy):
            async def chat_completions(self, messages: list[Any], **kwargs: Any) -> Any:
                raise ConnectionError("no trainer")

        with pytest.raises(ConnectionError, match="no trainer"):
            await run(calculator, Unreachable())

    async def test_writes_the_usual_events(self, calculator: MCPAgentLoop, tmp_path: Path) -> None:
        policy = ScriptedPolicy(calling(("add", '{"a": 1, "b": 1}')), saying("2"))
        await calculator.run(context_for(calculator, policy, debug_dir=tmp_path))
        lines = (tmp_path / "rollout-1.jsonl").read_text(encoding="utf-8").splitlines()
        events = [json.loads(line) for line in lines]
        assert [event["event"] for event in events] == [
            "pre_llm",
            "llm_response",
            "tool_results",
            "pre_llm",
            "llm_response",
            "rollout_complete",
        ]
        assert [event.get("turn") for event in events] == [0, 0, 0, 1, 1, None]
        assert events[0]["messages_summary"] == [QUESTION]
        assert events[1]["tool_calls"][0]["function"]["name"] == "add"
        assert events[2]["num_tool_results"] == 1
        assert events[2]["results_summary"] == [{"role": "tool", "content": "2.0"}]
        assert (events[5]["finish_reason"], events[5]["total_turns"]) == ("stop", 2)


class Unit(Enum):
    METRE = "m"
    FOOT = "ft"


@pytest.fixture
def tools() -> MCPAgentLoop:
    """Tools of every kind."""
    server = FastMCP("tools")

    @server.tool()
    def length(value: int, unit: Unit = Unit.METRE, note: str | None = None) -> str:
        return f"{value!r} {unit.value} {note!r}"

    @server.tool()
    async def join(parts: list[str], weights: dict[str, float]) -> str:
        return "".join(parts) + str(sum(weights.values()))

    @server.tool()
    def record() -> dict[str, Any]:
        return {"name": "Größe", "sizes": [1, 2]}

    @server.tool()
    def listing() -> list[int]:
        return [1, 2, 3]

    @server.tool()
    def nothing() -> None:
        return None

    @server.tool()
    def picture() -> Image:
        return Image(data=b"1234", format="png")

    @server.tool()
    def refuse() -> ToolResult:
        return ToolResult(content="the shop is closed", is_error=True)

    @server.tool()
    def fail() -> str:
        raise ValueError("no luck")

    @server.tool()
    def fail_with_advice() -> str:
        try:
            raise ValueError("no luck")
        except ValueError as error:
            raise ToolError("try a smaller number") from error

    @server.tool()
    def fail_silently() -> str:
        raise ValueError

    @server.tool()
    def leave() -> str:
        sys.exit(3)

    @server.tool()
    async def leave_later() -> str:
        await asyncio.sleep(0)
        sys.exit(3)

    return MCPAgentLoop(server)


class TestAToolCall:
    @pytest.mark.parametrize(
        ("name", "arguments", "answer"),
        [
            ("length", '{"value": 3}', "3 m None"),
            ("length", '{"value": "3", "unit": "ft", "note": "by eye"}', "3 ft 'by eye'"),
            ("length", '{"value": 3.0, "note": null}', "3 m None"),
            ("join", '{"parts": ["a", "b"], "weights": {"x": 1, "y": 0.5}}', "ab1.5"),
            ("record", "{}", '{"name": "Größe", "sizes": [1, 2]}'),
            ("record", "", '{"name": "Größe", "sizes": [1, 2]}'),
            ("record", None, '{"name": "Größe", "sizes": [1, 2]}'),
            ("listing", "{}", "[1, 2, 3]"),
            ("nothing", "{}", ""),
        ],
    )
    async def test_is_answered_with_the_result(
        self, name: str, arguments: Any, answer: str, tools: MCPAgentLoop
    ) -> None:
        assert await answer_to(tools, name, arguments) == answer

    @pytest.mark.parametrize(
        ("name", "arguments", "reasons"),
        [
            ("fail", "{}", ["fail failed"]),
            ("fail_with_advice", "{}", ["try a smaller number"]),
            ("fail_silently", "{}", ["fail_silently"]),
            ("refuse", "{}", ["the shop is closed"]),
            ("leave", "{}", ["exit"]),
            ("leave_later", "{}", ["exit"]),
            ("no_such_tool", "{}", ["no such tool; there are length, join, record"]),
            ("", "{}", ["no such tool"]),
            ("length", "{}", ["value", "Missing required argument"]),
            ("length", '{"value": "three", "colour": 1}', ["valid integer", "colour", "Unexpected keyword"]),
            ("length", '{"value": 1, "unit": "mile"}', ["unit", "'m' or 'ft'"]),
            ("length", '{"value": ', ["the arguments are not valid JSON"]),
            ("length", "[3]", ["the arguments must be a JSON object"]),
            (7, "{}", ["no such tool"]),
        ],
    )
    async def test_that_fails_is_answered_with_the_reason_and_the_rollout_goes_on(
        self, name: Any, arguments: Any, reasons: list[str], tools: MCPAgentLoop
    ) -> None:
        failed, other = await answers_to(tools, (name, arguments), ("listing", "{}"))
        assert failed.startswith("Error: ")
        assert all(reason in failed for reason in reasons)
        assert "https://" not in failed
        assert "no luck" not in failed
        assert other == "[1, 2, 3]"

    async def test_that_fails_tells_the_model_what_was_written_for_it_and_the_log_all(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        results = {
            "fail": ConnectionError("postgres://admin:hunter2@db"),
            "refuse": ToolError("no such customer"),
            "ours": ToolExecutionError("closed on Sundays"),
            "loud": ToolError("x" * 9000),
        }
        server = OldServer(*map(old_tool, results), results=results)
        failed, refused, ours, loud = await answers_to(MCPAgentLoop(server), *((name, "{}") for name in results))
        assert failed == "Error: fail failed"
        assert (refused, ours) == ("Error: no such customer", "Error: closed on Sundays")
        assert 2000 < len(loud) < 2100
        assert "hunter2" in caplog.text

    @pytest.mark.parametrize("is_mounted", [False, True])
    async def test_keeps_the_text_of_a_tools_own_exception_to_the_operator(self, is_mounted: bool) -> None:
        server = FastMCP("tools")

        class Row(BaseModel):
            count: int

        @server.tool()
        def raised() -> str:
            raise ValueError("hunter2")

        @server.tool()
        def parsed() -> str:
            return str(Row.model_validate({"count": "hunter2"}))

        @server.tool()
        def late() -> str:
            raise TimeoutError("hunter2")

        if is_mounted:
            outer = FastMCP("outer")
            outer.mount(server)
            server = outer
        names_of_all = ["raised", "parsed", "late"]
        answers = await answers_to(MCPAgentLoop(server), *((name, "{}") for name in names_of_all))
        assert answers == [f"Error: {name} failed" for name in names_of_all]

    async def test_without_an_id_is_answered_all_the_same(self, tools: MCPAgentLoop) -> None:
        calls = [{"function": {"name": "listing"}}, {"id": None, "function": {"name": "fail"}}, "text"]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        result = await run(tools, ScriptedPolicy(message, saying("done")))
        answers = [message for message in result.final_messages if message["role"] == "tool"]
        assert [answer["tool_call_id"] for answer in answers] == ["unknown"] * 3
        assert answers[2]["content"] == "Error: no such tool; there are " + ", ".join(names(tools))
        assert result.metrics is not None
        assert result.metrics.num_tool_calls == 3

    async def test_that_asks_for_input_is_answered_that_nobody_can_give_it(self) -> None:
        class InputRequest(ToolResult):
            input_required: str = ""

        server = OldServer(old_tool("ask"), results={"ask": InputRequest(content="?")})
        assert "asks for input" in await answer_to(MCPAgentLoop(server), "ask")


async def test_a_picture_arrives_at_the_policy_as_a_content_part(tools: MCPAgentLoop) -> None:
    policy = ScriptedPolicy(calling(("picture", "{}")), saying("seen"))
    result = await run(tools, policy)
    url = f"data:image/png;base64,{base64.b64encode(b'1234').decode()}"
    answer = {
        "role": "tool",
        "content": [{"type": "image_url", "image_url": {"url": url}}],
        "tool_call_id": "call-1",
    }
    assert policy.calls[1]["messages"][-1] == answer
    assert answer in result.final_messages
