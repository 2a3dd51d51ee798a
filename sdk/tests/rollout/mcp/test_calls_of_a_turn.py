"""The calls of one turn to MCP tools run at once."""

import asyncio
import threading

import pytest
from fastmcp import FastMCP
from support.mcp_agents import (
    ScriptedPolicy,
    answers_to,
    calling,
    run,
)

from osmosis_ai.rollout.mcp import MCPAgentLoop

DEADLINE_SECONDS = 60.0


class TestTheCallsOfATurn:
    async def test_run_together_and_are_answered_in_order(self) -> None:
        server = FastMCP("tools")
        last_has_run = asyncio.Event()
        both_run = threading.Barrier(2, timeout=DEADLINE_SECONDS)

        @server.tool()
        async def first() -> str:
            await last_has_run.wait()
            return "first"

        @server.tool()
        def middle() -> str:
            both_run.wait()
            return "middle"

        @server.tool()
        async def last() -> str:
            last_has_run.set()
            return "last"

        calls = [(name, "{}") for name in ("first", "middle", "middle", "last")]
        assert await answers_to(MCPAgentLoop(server), *calls) == ["first", "middle", "middle", "last"]

    async def test_have_a_time_limit_each(self) -> None:
        server = FastMCP("tools")
        released = threading.Event()
        cancelled = asyncio.Event()

        @server.tool()
        async def hang() -> str:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            return "never"

        @server.tool()
        def hang_in_a_thread() -> str:
            released.wait(DEADLINE_SECONDS)
            return "never"

        server.tool(lambda: "quick", name="quick")
        loop = MCPAgentLoop(server, tool_timeout_seconds=0.5)
        try:
            answers = await answers_to(loop, ("hang", "{}"), ("hang_in_a_thread", "{}"), ("quick", "{}"))
        finally:
            released.set()
        assert answers == [
            "Error: hang took longer than 0.5 seconds with the arguments {}",
            "Error: hang_in_a_thread took longer than 0.5 seconds with the arguments {}",
            "quick",
        ]
        assert cancelled.is_set()

    async def test_end_when_the_rollout_is_cancelled(self) -> None:
        server = FastMCP("tools")
        started, ended = asyncio.Event(), asyncio.Event()

        @server.tool()
        async def hang() -> str:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return "never"

        rollout = asyncio.create_task(run(MCPAgentLoop(server), ScriptedPolicy(calling(("hang", "{}")))))
        await started.wait()
        rollout.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rollout
        assert ended.is_set()
