"""Listing and calling the tools of FastMCP servers, of today and as they were."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from fastmcp import Context, FastMCP
from support.mcp_agents import OldServer, answer_to, answers_to, old_tool, tool_result

from osmosis_ai.rollout.mcp import MCPAgentLoop, MCPLoadError

DEADLINE_SECONDS = 60.0


def names(loop: MCPAgentLoop) -> list[str]:
    return [tool.function.name for tool in loop.get_default_tools()]


class AnswersToEverything:
    """A stand-in that has every attribute."""

    def __getattr__(self, name: str) -> Any:
        return AnswersToEverything()


class TestAServerWithAToolManager:
    def test_offers_what_the_manager_holds(self) -> None:
        parameters = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
        (tool,) = MCPAgentLoop(OldServer(old_tool("add", parameters, "Adds."))).get_default_tools()
        assert (tool.function.name, tool.function.description) == ("add", "Adds.")
        assert tool.function.parameters.properties["a"].type == "integer"

    def test_needs_nothing_else(self) -> None:
        server = SimpleNamespace(name="bare", _tool_manager=SimpleNamespace(_tools={"add": old_tool("add")}))
        assert names(MCPAgentLoop(server)) == ["add"]

    def test_is_known_by_its_manager_even_if_it_answers_to_every_name(self) -> None:
        server: Any = AnswersToEverything()
        server._tool_manager = SimpleNamespace(_tools={"add": old_tool("add")})
        assert names(MCPAgentLoop(server)) == ["add"]

    async def test_is_called_through_the_manager_with_name_and_arguments(self) -> None:
        server = OldServer(old_tool("add"), results={"add": tool_result({"result": 7})})
        assert await answer_to(MCPAgentLoop(server), "add", '{"a": 3, "b": 4}') == "7"
        assert server.calls == [("add", {"a": 3, "b": 4})]

    async def test_runs_a_plain_function_off_the_event_loop(self) -> None:
        both_run = threading.Barrier(2, timeout=DEADLINE_SECONDS)

        def wait() -> str:
            both_run.wait()
            return "met"

        class Server(OldServer):
            async def _call(self, name: str, arguments: dict[str, Any]) -> Any:
                return tool_result({"result": wait()})

        loop = MCPAgentLoop(Server(old_tool("wait", fn=wait)))
        assert await answers_to(loop, ("wait", "{}"), ("wait", "{}")) == ["met", "met"]


class TestAServerWithPublicMethods:
    async def test_may_be_listed_inside_an_event_loop(self) -> None:
        server = FastMCP("tools")
        server.tool(lambda: 1, name="one")
        assert names(MCPAgentLoop(server)) == ["one"]

    async def test_may_be_a_stand_in(self) -> None:
        class Server:
            async def list_tools(self) -> list[Any]:
                return [old_tool("add")]

            async def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
                return tool_result(None, f"{name} {arguments}")

        assert await answer_to(MCPAgentLoop(Server()), "add", '{"a": 1}') == "add {'a': 1}"

    async def test_offers_the_tools_of_the_servers_it_mounts(self) -> None:
        inner, outer = FastMCP("inner"), FastMCP("outer")
        inner.tool(lambda: "from inside", name="ask")
        outer.mount(inner, "in")
        assert await answer_to(MCPAgentLoop(outer), "in_ask") == "from inside"

    @pytest.mark.parametrize("error", [ConnectionError("no upstream"), SystemExit(3)])
    def test_that_cannot_list_its_tools_cannot_be_used(self, error: BaseException) -> None:
        class Server:
            async def list_tools(self) -> list[Any]:
                raise error

        with pytest.raises(MCPLoadError, match=rf"\(Server\) cannot list its tools: {type(error).__name__}: {error}"):
            MCPAgentLoop(Server())

    def test_that_is_no_server_cannot_be_used(self) -> None:
        with pytest.raises(MCPLoadError, match=r"\(object\) cannot list its tools"):
            MCPAgentLoop(object())

    def test_that_hangs_cannot_be_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Server:
            async def list_tools(self) -> list[Any]:
                await asyncio.Event().wait()
                return []

        monkeypatch.setattr("osmosis_ai.rollout.mcp.tool_server.LISTING_TIMEOUT_SECONDS", 0.01)
        with pytest.raises(MCPLoadError, match=r"did not list its tools in 0\.01 s"):
            MCPAgentLoop(Server())


class TestTheLifespanOfAServer:
    async def test_is_open_while_rollouts_run_and_shared_by_those_that_overlap(self) -> None:
        events: list[str] = []
        met = asyncio.Barrier(2)

        @asynccontextmanager
        async def lifespan(server: Any) -> AsyncIterator[dict[str, str]]:
            events.append("begin")
            yield {"database": "open"}
            events.append("end")

        server = FastMCP("tools", lifespan=lifespan)

        @server.tool()
        async def database(ctx: Context) -> str:
            await met.wait()
            return str(ctx.lifespan_context["database"])

        loop = MCPAgentLoop(server)
        assert events == []
        answers = await asyncio.gather(answer_to(loop, "database"), answer_to(loop, "database"))
        assert list(answers) == ["open", "open"]
        assert events == ["begin", "end"]

    def test_begins_in_the_event_loop_of_the_rollout(self) -> None:
        loops: list[asyncio.AbstractEventLoop] = []

        @asynccontextmanager
        async def lifespan(server: Any) -> AsyncIterator[None]:
            loops.append(asyncio.get_running_loop())
            yield

        server = FastMCP("tools", lifespan=lifespan)
        server.tool(lambda: 1, name="one")
        loop = MCPAgentLoop(server)

        async def roll_out() -> bool:
            return await answer_to(loop, "one") == "1" and loops[-1] is asyncio.get_running_loop()

        assert asyncio.run(roll_out())
        assert asyncio.run(roll_out())

    async def test_that_cannot_begin_fails_the_rollout_with_its_reason(self) -> None:
        @asynccontextmanager
        async def lifespan(server: Any) -> AsyncIterator[None]:
            raise ConnectionError("the database is down")
            yield

        server = FastMCP("tools", lifespan=lifespan)
        server.tool(lambda: 1, name="one")
        with pytest.raises(Exception, match="the database is down"):
            await answer_to(MCPAgentLoop(server), "one")


async def test_a_failed_call_draws_no_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    server = FastMCP("tools")

    @server.tool()
    def fail() -> None:
        raise ValueError("no luck")

    drawn = logging.getLogger("fastmcp")
    drawn.addHandler(caplog.handler)
    try:
        assert "fail failed" in await answer_to(MCPAgentLoop(server), "fail")
    finally:
        drawn.removeHandler(caplog.handler)
    assert [record.name for record in caplog.records if record.exc_info] == []
    assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == [
        "osmosis_ai.rollout.mcp.agent_loop"
    ]
