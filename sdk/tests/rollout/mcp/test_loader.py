"""Loading a directory of tools: what is taken, what goes wrong, and what is left of it in the process."""

import hashlib
import importlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fastmcp
import pytest
from support.mcp_agents import answer_to, write_files

from osmosis_ai.rollout.mcp import MCPAgentLoop, MCPLoadError, load_mcp_server
from osmosis_ai.rollout.mcp.agent_loop import load_mcp_agent

SERVER = "from fastmcp import FastMCP\nmcp = FastMCP('tools')\n"


def write(directory: Path, main: str = "", **sources: str) -> Path:
    """A directory whose main.py makes a server and then runs ``main``."""
    return write_files(directory, main=f"{SERVER}{main}", **sources)


def tool_names(loop: MCPAgentLoop) -> list[str]:
    return [tool.function.name for tool in loop.get_default_tools()]


def package_name(directory: Path) -> str:
    return "_osmosis_mcp_" + hashlib.sha256(str(directory).encode()).hexdigest()[:8]


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """What each test has to leave as it was: the path, and the modules under plain names."""
    path, entries, modules = sys.path, list(sys.path), dict(sys.modules)
    yield
    assert sys.path is path
    assert sys.path == entries
    assert {
        name for name in sys.modules.keys() - modules.keys() if name in ("main", "helpers", "tools", "server")
    } == set()
    assert all(sys.modules[name] is module for name, module in modules.items() if name in sys.modules)


class TestTheServer:
    def test_is_the_instance_in_main(self, tmp_path: Path) -> None:
        server = load_mcp_server(str(write(tmp_path)))
        assert isinstance(server, fastmcp.FastMCP)
        assert server.name == "tools"

    def test_named_mcp_is_preferred_and_the_choice_is_said(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        write(tmp_path, "extra = FastMCP('extra')\nzoo = FastMCP('zoo')\n")
        assert load_mcp_server(tmp_path).name == "tools"
        assert "several FastMCP servers (extra, mcp, zoo); taking 'mcp'" in caplog.text

    def test_is_the_first_by_name_where_none_is_named_mcp(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        write_files(tmp_path, main="from fastmcp import FastMCP\nb = FastMCP('b')\na = FastMCP('a')\n")
        assert load_mcp_server(tmp_path).name == "a"
        assert "taking 'a'" in caplog.text

    def test_under_two_names_is_one_server(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        load_mcp_server(write(tmp_path, "app = mcp\n"))
        assert caplog.text == ""

    def test_is_read_anew_by_each_load(self, tmp_path: Path) -> None:
        for name in ("one", "two", "six"):  # of one length, written within one second
            write_files(tmp_path, main="from fastmcp import FastMCP\nfrom helpers import name\nmcp = FastMCP(name)\n")
            write_files(tmp_path, helpers=f"name = {name!r}\n")
            assert load_mcp_server(tmp_path).name == name

    def test_does_not_begin_to_serve(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        run = fastmcp.FastMCP.run
        main = "import asyncio, threading\nmcp.run()\nmcp.run(transport='http', port=1)\n"
        thread = "t = threading.Thread(target=lambda: asyncio.run(mcp.run_async()))\nt.start()\nt.join()\n"
        assert load_mcp_server(write(tmp_path, main + thread)).name == "tools"
        assert caplog.text.count("run() on import, which has no effect") == 2
        assert "run_async() on import" in caplog.text
        assert fastmcp.FastMCP.run is run

    def test_leaves_no_compiled_files(self, tmp_path: Path) -> None:
        load_mcp_server(write(tmp_path, "import helpers\n", helpers=""))
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["helpers.py", "main.py"]


class TestWhatCannotBeLoaded:
    @pytest.mark.parametrize("path", ["", "missing", "main.py", "a\0b"])
    def test_no_directory(self, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(write(tmp_path))
        with pytest.raises(MCPLoadError, match="does not exist"):
            load_mcp_server(path)

    def test_no_main(self, tmp_path: Path) -> None:
        with pytest.raises(MCPLoadError, match=r"No main\.py found in '.*'; put the FastMCP server there"):
            load_mcp_server(tmp_path)

    def test_no_server(self, tmp_path: Path) -> None:
        with pytest.raises(MCPLoadError, match=r"No FastMCP instance found in .*main\.py; make one"):
            load_mcp_server(write_files(tmp_path, main="from fastmcp import FastMCP\nmcp = FastMCP\n"))

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            ("x = 1\nraise ValueError('no\\nluck')\n", "no luck (ValueError at main.py, line 2)"),
            ("def f(:\n", "(SyntaxError at main.py, line 1)"),
            ("import helpers\n", "division by zero (ZeroDivisionError at helpers.py, line 2)"),
            ("import json\njson.loads('x')\n", "(JSONDecodeError at main.py, line 2)"),
            ("from . import nothing\n", "cannot import name 'nothing'"),
            ("import no_such_module\n", "No module named 'no_such_module' (ModuleNotFoundError at main.py, line 1)"),
            ("import folder.nothing\n", "No module named 'folder.nothing' (ModuleNotFoundError at main.py, line 1)"),
            ("import sys\nsys.exit(3)\n", "it exits on import, with code 3 at main.py, line 2; move that under"),
            ("raise RuntimeError\n", "no message (RuntimeError at main.py, line 1)"),
        ],
    )
    def test_a_failing_main(self, source: str, reason: str, tmp_path: Path) -> None:
        write_files(tmp_path, main=source, helpers="x = 0\nx = 1 / x\n", folder____init__="")
        with pytest.raises(MCPLoadError) as raised:
            load_mcp_server(tmp_path)
        message = str(raised.value)
        assert message.startswith(f"Error importing {tmp_path / 'main.py'}: ")
        assert reason in message
        assert "\n" not in message
        assert "_osmosis_mcp_" not in message
        assert raised.value.__cause__ is not None
        assert not [name for name in sys.modules if name.startswith(package_name(tmp_path))]

    def test_an_interrupt_passes(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            load_mcp_server(write(tmp_path, "raise KeyboardInterrupt\n"))

    def test_fastmcp_is_not_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "fastmcp", None)
        with pytest.raises(MCPLoadError, match=r"pip install 'osmosis-ai\[mcp\]'"):
            load_mcp_server(write(tmp_path))

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (ModuleNotFoundError("No module named 'anyio'", name="anyio"), "No module named 'anyio'"),
            (TypeError("unsupported operand"), "TypeError: unsupported operand"),
        ],
    )
    def test_fastmcp_is_broken(
        self, error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Broken(ModuleType):
            def __getattr__(self, name: str) -> Any:
                raise error

        monkeypatch.setitem(sys.modules, "fastmcp", Broken("fastmcp"))
        with pytest.raises(MCPLoadError, match=f"fastmcp cannot be imported .*{reason}"):
            load_mcp_server(write(tmp_path))

    @pytest.mark.slow
    def test_the_package_can_be_imported_without_fastmcp(self) -> None:
        code = (
            "import sys\n"
            "sys.modules['fastmcp'] = None\n"
            "from osmosis_ai.rollout import mcp\n"
            "assert sorted(mcp.__all__) == ['MCPAgentLoop', 'MCPLoadError', 'load_mcp_server']\n"
            "assert mcp.MCPAgentLoop.name == 'mcp_agent'\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_a_substitute_for_fastmcp_is_honoured(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        substitute: Any = ModuleType("fastmcp")
        substitute.FastMCP = type("FastMCP", (), {"__init__": lambda self, name: None})
        monkeypatch.setitem(sys.modules, "fastmcp", substitute)
        assert type(load_mcp_server(write(tmp_path))) is substitute.FastMCP


class TestTheModulesOfADirectory:
    @pytest.mark.parametrize(
        "statement",
        [
            "from .helpers import register",
            "from helpers import register",
            "import helpers; register = helpers.register",
            "import helpers as h; register = h.register",
            "import importlib; register = importlib.import_module('helpers').register",
            "from .folder.helpers import register",
            "from folder.helpers import register",
            "from folder import helpers; register = helpers.register",
            "import folder.helpers; register = folder.helpers.register",
            "import folder.helpers as h; register = h.register",
            "import importlib; register = importlib.import_module('folder.helpers').register",
        ],
    )
    async def test_import_one_another_as_they_like(self, statement: str, tmp_path: Path) -> None:
        helpers = """
            def register(mcp):
                @mcp.tool()
                def hello() -> str:
                    return "hello"
            """
        write(tmp_path, f"{statement}\nregister(mcp)\n", helpers=helpers, folder__helpers=helpers)
        assert await answer_to(load_mcp_agent(tmp_path), "hello") == "hello"

    async def test_are_the_same_module_under_each_name(self, tmp_path: Path) -> None:
        main = """
import importlib
import helpers as plain
from . import helpers as relative
@mcp.tool()
def same() -> list[bool]:
    import helpers
    return [plain is relative, plain is dynamic, plain is helpers, plain.__spec__.name == plain.__name__]
dynamic = importlib.import_module("helpers")
"""
        assert await answer_to(load_mcp_agent(write(tmp_path, main, helpers="")), "same") == "[true, true, true, true]"

    async def test_may_define_tools_on_the_server_of_main(self, tmp_path: Path) -> None:
        tools = """
            from main import mcp

            @mcp.tool()
            def hello() -> str:
                return "hello"
            """
        write(tmp_path, "import tools\n", tools=tools)
        assert tool_names(load_mcp_agent(tmp_path)) == ["hello"]

    async def test_are_not_those_of_another_directory(self, tmp_path: Path) -> None:
        main = """
import helpers
@mcp.tool()
def name() -> str:
    import late
    return helpers.NAME + late.NAME
"""
        loops = [
            load_mcp_agent(write(tmp_path / name, main, helpers=f"NAME = '{name}'", late=f"NAME = '{name}'"))
            for name in ("a", "b")
        ]
        assert [await answer_to(loop, "name") for loop in loops] == ["aa", "bb"]

    async def test_are_not_shadowed_by_modules_loaded_earlier(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("tools", "server", "helpers", "main"):
            module: Any = ModuleType(name)
            module.NAME = "foreign"
            monkeypatch.setitem(sys.modules, name, module)
        main = """
import importlib
from tools import NAME as first
import server
third = importlib.import_module("helpers").NAME
@mcp.tool()
def names() -> list[str]:
    from tools import NAME
    return [first, server.NAME, third, NAME]
"""
        own = "NAME = 'own'"
        loop = load_mcp_agent(write(tmp_path, main, tools=own, server=own, helpers=own))
        assert await answer_to(loop, "names") == '["own", "own", "own", "own"]'
        assert sys.modules["tools"].NAME == "foreign"

    async def test_may_be_imported_when_a_tool_runs(self, tmp_path: Path) -> None:
        main = """
@mcp.tool()
def late() -> list[str]:
    import json
    import first
    from .second import NAME
    from folder.third import NAME as third
    return [first.NAME, NAME, third]
"""
        write(
            tmp_path, main, first="NAME = 'a'", second="NAME = 'b'", folder__third="import first\nNAME = first.NAME * 3"
        )
        assert await answer_to(load_mcp_agent(tmp_path), "late") == '["a", "b", "aaa"]'

    def test_may_have_the_name_of_a_standard_module(self, tmp_path: Path) -> None:
        write(tmp_path, "import json, colorsys\nassert colorsys.OWN\nassert json.dumps\n", colorsys="OWN = True")
        load_mcp_server(tmp_path)
        assert not hasattr(importlib.import_module("colorsys"), "OWN")

    def test_a_folder_without_modules_hides_no_package(self, tmp_path: Path) -> None:
        (tmp_path / "httpx").mkdir()
        load_mcp_server(write(tmp_path, "import httpx\nhttpx.Client\n"))

    def test_find_their_directory_first_on_the_path(self, tmp_path: Path) -> None:
        load_mcp_server(write(tmp_path, f"import sys\nassert sys.path[0] == {str(tmp_path)!r}\nsys.path = ['x']\n"))

    def test_live_in_a_package_named_for_the_directory(self, tmp_path: Path) -> None:
        load_mcp_server(write(tmp_path, "import helpers\n", helpers=""))
        name = package_name(tmp_path)
        assert {f"{name}", f"{name}.main", f"{name}.helpers"} <= sys.modules.keys()
        assert sys.modules[f"{name}.main"].__file__ == str(tmp_path / "main.py")

    def test_may_load_another_directory(self, tmp_path: Path) -> None:
        other = write(
            tmp_path / "other", "from helpers import NAME\nmcp.instructions = NAME\n", helpers="NAME = 'other'"
        )
        main = f"""
from osmosis_ai.rollout.mcp import load_mcp_server
other = load_mcp_server({str(other)!r})
import importlib
assert importlib.import_module("helpers").NAME == "own"
mcp.instructions = other.instructions
"""
        assert load_mcp_server(write(tmp_path / "own", main, helpers="NAME = 'own'")).instructions == "other"


def test_a_relative_directory_is_that_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "tools_of_mine", "mcp.tool(lambda: 1, name='show')\n")
    monkeypatch.chdir(tmp_path)
    assert tool_names(load_mcp_agent("./tools_of_mine")) == ["show"]


def test_a_server_without_tools_is_loaded_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert tool_names(load_mcp_agent(write(tmp_path))) == []
    assert "offers no tools" in caplog.text
