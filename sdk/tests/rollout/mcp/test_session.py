"""The session that MCP tools find: of one rollout, seen by no other, gone with it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Context, FastMCP
from key_value.aio.stores.memory import MemoryStore
from support.mcp_agents import ScriptedPolicy, answer_to, answers_to, calling, context_for, run, saying

from osmosis_ai.rollout.core.exceptions import ToolExecutionError
from osmosis_ai.rollout.mcp import MCPAgentLoop


def counting_tools() -> FastMCP[Any]:
    """Tools that keep a count between calls."""
    server = FastMCP("tools", session_state_store=MemoryStore())

    @server.tool()
    async def add(ctx: Context, by: int) -> int:
        total = (await ctx.get_state("total") or 0) + by
        await ctx.set_state("total", total)
        return total

    @server.tool()
    async def who(ctx: Context) -> str:
        return ctx.session_id

    return server


def told(result: Any) -> list[str]:
    return [message["content"] for message in result.final_messages if message["role"] == "tool"]


async def kept_by(server: FastMCP[Any]) -> list[str]:
    store: Any = server._state_storage
    keys: list[str] = await store.keys(collection="fastmcp_state")
    return keys


class TestTheStateOfATool:
    @pytest.mark.parametrize("is_mounted", [False, True])
    async def test_is_there_in_the_next_turn_and_gone_with_the_rollout(self, is_mounted: bool) -> None:
        inner = counting_tools()
        server = inner
        if is_mounted:
            server = FastMCP("outer")
            server.mount(inner)
        loop = MCPAgentLoop(server)
        for _ in range(2):
            policy = ScriptedPolicy(calling(("add", '{"by": 2}')), calling(("add", '{"by": 3}')), saying("done"))
            assert told(await run(loop, policy)) == ["2", "5"]
            assert await kept_by(inner) == []

    async def test_is_not_that_of_a_rollout_beside_it(self) -> None:
        server, met = counting_tools(), asyncio.Barrier(2)

        @server.tool()
        async def meet() -> str:
            await met.wait()
            return "met"

        def policy(by: int) -> ScriptedPolicy:
            add = calling(("add", json.dumps({"by": by})))
            return ScriptedPolicy(add, calling(("meet", "{}")), add, saying("done"))

        loop = MCPAgentLoop(server)
        results = await asyncio.gather(run(loop, policy(1)), run(loop, policy(10)))
        assert [told(result) for result in results] == [["1", "met", "2"], ["10", "met", "20"]]
        assert await kept_by(server) == []

    async def test_goes_with_a_rollout_that_is_cancelled(self) -> None:
        server, hangs = counting_tools(), asyncio.Event()

        @server.tool()
        async def hang() -> None:
            hangs.set()
            await asyncio.Event().wait()

        policy = ScriptedPolicy(calling(("add", '{"by": 1}')), calling(("hang", "{}")))
        rollout = asyncio.create_task(run(MCPAgentLoop(server), policy))
        await hangs.wait()
        assert len(await kept_by(server)) == 1
        rollout.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rollout
        assert await kept_by(server) == []

    async def test_that_cannot_be_deleted_costs_no_result(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(MemoryStore):
            async def delete(self, *_: Any, **__: Any) -> bool:
                raise ConnectionError("the store is down")

        server = counting_tools()
        server._state_storage = Broken()
        assert await answer_to(MCPAgentLoop(server), "add", '{"by": 1}') == "1"
        assert "could not be deleted: ConnectionError: the store is down" in caplog.text


async def test_a_rollout_has_one_session_id_and_no_other_has_it() -> None:
    loop = MCPAgentLoop(counting_tools())
    first, again = await answers_to(loop, ("who", "{}"), ("who", "{}"))
    assert first == again
    assert await answer_to(loop, "who") not in (first, "")


async def test_what_a_tool_tells_its_client_is_in_the_trace(tmp_path: Path) -> None:
    server = FastMCP("tools")

    @server.tool()
    async def talk(ctx: Context) -> str:
        await ctx.info("x" * 9000)
        await ctx.warning("look", logger_name="mine", extra={"a": 1})
        await ctx.report_progress(1, 2)
        return f"{ctx.request_id} {ctx.client_id} {ctx.client_supports_extension('x')}"

    loop = MCPAgentLoop(server)
    ctx = context_for(loop, ScriptedPolicy(calling(("talk", "{}")), saying("done")), debug_dir=tmp_path)
    assert told(await loop.run(ctx)) == ["1 None False"]
    lines = (tmp_path / "rollout-1.jsonl").read_text(encoding="utf-8").splitlines()
    first, second = [event for event in map(json.loads, lines) if event["event"] == "mcp_log"]
    assert first["level"] == "info"
    assert len(first["message"]) < 2100
    assert (second["level"], second["message"], second["logger"]) == ("warning", "look", "mine")


async def test_a_tool_that_asks_for_input_or_raises_an_error_of_ours_tells_the_model() -> None:
    server = FastMCP("tools")

    @server.tool()
    async def ask(ctx: Context) -> str:
        return str(await ctx.elicit("Really?", str))

    @server.tool()
    async def closed() -> str:
        raise ToolExecutionError("closed on Sundays")

    answers = await answers_to(MCPAgentLoop(server), ("ask", "{}"), ("closed", "{}"))
    assert answers == ["Error: The tool asks for input, which nobody can give here", "Error: closed on Sundays"]
