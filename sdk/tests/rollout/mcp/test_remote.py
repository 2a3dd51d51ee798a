"""``--mcp URL``: a FastMCP server in a process of its own, over streamable HTTP."""

import asyncio
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.mcp_agents import ScriptedPolicy, answers_to, calling, context_for, run, saying
from support.mcp_servers import served

from osmosis_ai.rollout.core.exceptions import ToolExecutionError
from osmosis_ai.rollout.core.user_errors import UsageError
from osmosis_ai.rollout.mcp import MCPAgentLoop, MCPLoadError
from osmosis_ai.rollout.mcp.agent_loop import load_mcp_agent
from osmosis_ai.rollout.mcp.remote import MCPServerError, _http_client
from osmosis_ai.rollout.run.agents import check_naming

KEY = "mcp-key-0123456789"
SERVER = """
import asyncio, os, sys
from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.utilities.types import Image

mcp = FastMCP("tools")

@mcp.tool
async def add(ctx: Context, by: int) -> int:
    total = (await ctx.get_state("total") or 0) + by
    await ctx.set_state("total", total)
    await ctx.info("added")
    return total

@mcp.tool
def fail() -> str:
    raise ValueError("hunter2")

@mcp.tool
def told() -> str:
    raise ToolError("a smaller one")

@mcp.tool
def picture() -> Image:
    return Image(data=b"1234", format="png")

@mcp.tool
def large() -> str:
    return "x" * 40_000_000

@mcp.tool
async def hang() -> None:
    await asyncio.Event().wait()

@mcp.tool
def die() -> None:
    os._exit(3)

mcp.run("http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False, log_level="error")
"""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with served(SERVER, tmp_path) as address:
        yield address


def told(result: Any) -> list[Any]:
    return [message["content"] for message in result.final_messages if message["role"] == "tool"]


@pytest.mark.slow
async def test_a_server_serves_rollouts_with_a_session_each(url: str, tmp_path: Path) -> None:
    loop = load_mcp_agent(url)
    definitions = {tool.function.name: tool.function.parameters for tool in loop.get_default_tools()}
    assert definitions["add"].properties["by"].type == "integer"

    def policy(by: int) -> ScriptedPolicy:
        add = calling(("add", json.dumps({"by": by})))
        return ScriptedPolicy(add, add, saying("done"))

    results = await asyncio.gather(run(loop, policy(1)), run(loop, policy(10)))
    assert [told(result) for result in results] == [["1", "2"], ["10", "20"]]
    failed, refused, unfit, picture = await answers_to(
        loop, ("fail", "{}"), ("told", "{}"), ("add", '{"by": "x"}'), ("picture", "{}")
    )
    assert (failed, refused) == ("Error: fail failed", "Error: a smaller one")
    assert "valid integer" in unfit
    assert picture[0]["type"] == "image_url"  # type: ignore[index]
    ctx = context_for(loop, policy(1), debug_dir=tmp_path)
    await loop.run(ctx)
    assert '"mcp_log"' in (tmp_path / "rollout-1.jsonl").read_text()

    quick = MCPAgentLoop(loop.mcp_server, tool_timeout_seconds=0.2)
    assert await answers_to(quick, ("hang", "{}")) == ["Error: hang took longer than 0.2 seconds with the arguments {}"]
    for name in ("large", "die"):  # no failure of the model's
        with pytest.raises(ToolExecutionError, match=r"The MCP server at .* failed") as raised:
            await answers_to(loop, (name, "{}"))
        assert isinstance(raised.value.__cause__, MCPServerError)
    with pytest.raises(MCPServerError, match="cannot be reached"):
        await answers_to(loop, ("add", '{"by": 1}'))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://", "valid host and port"),
        ("http://user:hunter2@127.0.0.1/mcp", "must not carry user info"),
        ("http://127.0.0.1/mcp?key=hunter2", "must not have a query"),
        ("http://127.0.0.1:99999/mcp", "valid host and port"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_and_keys_in_it_are_not_shown(address: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        check_naming(None, address)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("given", [KEY, f"{KEY}\n", None])
async def test_the_key_is_a_bearer_token_and_nowhere_to_be_seen(
    given: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OSMOSIS_MCP_API_KEY", given or "")
    heads: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(f"HTTP/1.1 401 Unauthorized\r\ncontent-length: 21\r\n\r\nkey {KEY}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(MCPLoadError, match="status 401, OSMOSIS_MCP_API_KEY is sent as its bearer") as refused:
            await asyncio.to_thread(load_mcp_agent, f"http://127.0.0.1:{port}/mcp")
    sent = f"authorization: bearer {KEY}".encode()
    assert [sent in head.lower() for head in heads] == [given is not None] * len(heads)
    assert heads
    if given is not None:
        assert KEY not in str(refused.value) + caplog.text


def test_a_key_that_no_header_can_have_is_a_sentence_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSMOSIS_MCP_API_KEY", "clé-hunter2")
    with pytest.raises(UsageError, match="OSMOSIS_MCP_API_KEY must be printable ASCII text") as refused:
        load_mcp_agent("http://127.0.0.1:9/mcp")
    assert "hunter2" not in str(refused.value)


async def test_nobody_at_the_address_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(MCPLoadError, match=rf"The MCP server at http://127\.0\.0\.1:{port}/mcp cannot be reached"):
        load_mcp_agent(f"http://127.0.0.1:{port}/mcp")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n" + b" " * 5000, "more than 1,000"),
        (b"200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx", "a compressed reply"),
        (b"307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", "status 307"),
    ],
)
async def test_a_hostile_server_is_bounded_and_sends_nobody_elsewhere(
    reply: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osmosis_ai.rollout.mcp.remote.MAX_REPLY_BYTES", 1000)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b"accept-encoding: identity" in head
        writer.write(b"HTTP/1.1 " + reply)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = _http_client()
        async with client:
            try:
                response = await client.post(f"http://127.0.0.1:{port}/mcp", json={})
                problem = f"status {response.status_code}"
            except Exception as error:  # noqa: BLE001 - of httpx or httpx2
                problem = str(error)
    assert reason in problem
