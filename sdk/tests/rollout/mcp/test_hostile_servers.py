"""MCP servers that offer and answer anything: each tool costs itself at most, and what is too much is told."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mcp_agents import answer_to, answers_to
from support.mcp_servers import served

from osmosis_ai.rollout.core.exceptions import ToolExecutionError
from osmosis_ai.rollout.mcp import MCPAgentLoop
from osmosis_ai.rollout.mcp.agent_loop import load_mcp_agent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # FastMCP takes seconds to start

HOSTILE = """
import asyncio, base64, json, sys
import mcp.types
from fastmcp import Context, FastMCP
from fastmcp.tools import Tool, ToolResult

server = FastMCP("hostile")


class Raw(Tool):
    async def run(self, arguments):
        return ToolResult(content=[mcp.types.TextContent(type="text", text=self.name)])


def offer(name, properties={}, definitions={}, description="d"):
    schema = {"type": "object", "properties": properties, "$defs": definitions}
    server.add_tool(Raw(name=name, description=description, parameters=schema))


for number in range(200):
    offer(f"tool_{number}", {"a": {"type": "number"}})
for name in ("files.read", "files/read", "\\u202eb", "x" * 300, "", "call; rm", "__call__"):
    offer(name)
offer("direct", {"a": {"$ref": "#/properties/a"}})
offer("mutual", {"a": {"$ref": "#/$defs/A"}}, {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}})
branches = {"l": {"$ref": "#/$defs/N"}, "r": {"$ref": "#/$defs/N"}}
offer("tree", {"a": {"$ref": "#/$defs/N"}}, {"N": {"type": "object", "properties": branches}})
layers = {
    f"L{i}": {"type": "object", "properties": {k: {"$ref": f"#/$defs/L{i + 1}"} for k in "xy"}} for i in range(30)
}
offer("bomb", {"a": {"$ref": "#/$defs/L0"}}, {**layers, "L30": {"type": "string"}})
offer("wordy", description="z" * 2_000_000)


@server.tool
def long() -> mcp.types.TextContent:
    return mcp.types.TextContent(type="text", text="x" * 3_000_000)


@server.tool
def picture() -> mcp.types.ImageContent:
    return mcp.types.ImageContent(type="image", data=base64.b64encode(bytes(3_000_000)).decode(), mimeType="image/png")


@server.tool
def broken_picture() -> mcp.types.ImageContent:
    return mcp.types.ImageContent(type="image", data="!!!", mimeType="image/png")


@server.tool
def blob() -> mcp.types.EmbeddedResource:
    data = mcp.types.BlobResourceContents(uri="file:///x", mimeType="application/pdf", blob="AAEC")
    return mcp.types.EmbeddedResource(type="resource", resource=data)


@server.tool
def raw() -> bytes:
    return bytes([255, 254, 0])


@server.tool
async def chatty(ctx: Context) -> str:
    while True:
        await ctx.info("z" * 3000)


@server.tool
def ends() -> str:
    sys.exit(3)


server.run("http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False, log_level="critical")
"""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with served(HOSTILE, tmp_path) as address:
        yield address


async def test_a_server_over_http_is_bounded(url: str, caplog: pytest.LogCaptureFixture) -> None:
    loop = load_mcp_agent(url)
    names = [tool.function.name for tool in loop.get_default_tools()]
    assert len(names) == len(set(names))
    assert {"tool_199", "files_read", "files_read_2", "_b", "x" * 64, "call__rm", "tree", "wordy"} <= set(names)
    assert not {"direct", "mutual", "bomb", ""} & set(names)
    assert "'direct' is left out: the reference '#/properties/a' leads only to itself" in caplog.text
    assert "'bomb' is left out: its input schema has more than 20,000 parts" in caplog.text
    assert "tools, and all of them are sent with each call; many models take 128 at most" in caplog.text
    assert max(map(len, caplog.messages)) < 1000

    long, picture, broken, blob, raw = await answers_to(
        loop, *((name, "{}") for name in ("long", "picture", "broken_picture", "blob", "raw"))
    )
    assert long.startswith("x" * 1_000_000)
    assert long.endswith("\n[2,000,000 more characters are left out]")
    assert picture[0]["type"] == "image_url"  # type: ignore[index]
    assert (broken, blob) == ("[image: image/png, 2 bytes]", "[resource: file:///x, application/pdf, 3 bytes]")
    assert raw == "//4A"

    quick = MCPAgentLoop(loop.mcp_server, tool_timeout_seconds=1)
    assert await answer_to(quick, "chatty") == "Error: chatty took longer than 1 seconds with the arguments {}"
    assert "Traceback" not in caplog.text
    with pytest.raises(ToolExecutionError, match=r"The MCP server at .* failed"):
        await answer_to(loop, "ends")


STDIO = """
import os
from mcp.server import MCPServer

server = MCPServer("sums")


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


@server.tool()
def fail() -> str:
    raise ValueError("hunter2")


@server.tool()
def die() -> str:
    os._exit(3)


server.run("stdio")
"""


async def test_one_over_stdio_is_reached_through_a_folder(tmp_path: Path) -> None:
    """The server is of the package mcp; the folder's ``main.py`` starts a process a call, one call at a time."""
    (tmp_path / "sums.py").write_text(STDIO)
    (tmp_path / "main.py").write_text(
        "from fastmcp.client.transports import StdioTransport\n"
        "from fastmcp.server import create_proxy\n"
        f"command = [{str(tmp_path / 'sums.py')!r}]\n"
        f"mcp = create_proxy(StdioTransport({sys.executable!r}, command, keep_alive=False))\n"
    )
    loop = load_mcp_agent(tmp_path)
    [add, *_] = loop.get_default_tools()
    assert add.function.parameters is not None
    assert add.function.parameters.properties["a"].type == "integer"
    assert await answer_to(loop, "add", '{"a": 1, "b": 2}') == "3"
    assert "valid integer" in await answer_to(loop, "add", '{"a": 1, "b": "x"}')
    assert "hunter2" not in await answer_to(loop, "fail")
    assert await answer_to(loop, "die") == "Error: die failed"
