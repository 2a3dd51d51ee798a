"""Loads the FastMCP server that a directory's ``main.py`` makes.

Whatever goes wrong in the directory becomes an ``MCPLoadError``, which keeps the original exception as its cause; only
``KeyboardInterrupt`` passes.
"""

import inspect
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.text import text_of
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError
from osmosis_ai.rollout.mcp.package import DirectoryPackage

if TYPE_CHECKING:
    from fastmcp import FastMCP

__all__ = ["MCPLoadError", "load_mcp_server"]

logger = logging.getLogger(__name__)

MAIN_MODULE = "main"
PREFERRED_ATTRIBUTE = "mcp"
INSTALL_HINT = "install it with: pip install 'osmosis-ai[mcp]'"
MAX_REASON_LENGTH = 300

# What would serve MCP for good when called without `if __name__ == "__main__"`.
_RUN_METHODS = ("run", "run_async", "run_stdio_async", "run_http_async", "run_sse_async", "run_streamable_http_async")


class MCPLoadError(CLIError):
    """A directory of MCP tools cannot be used; one sentence that says why, where, and what to do."""


class NoMCPDirectoryError(MCPLoadError, UsageError):
    """There is no such directory, or no server in it."""


REWARD_FUNCTION = "compute_reward"
"""What ``main.py`` may hold beside the server, defined there or imported."""


def load_mcp_server(mcp_path: str | Path) -> "FastMCP[Any]":
    """Import ``main.py`` in the directory ``mcp_path`` and return the ``fastmcp.FastMCP`` instance it holds.

    Of several instances the one named ``mcp`` is taken, else the first by name, with a warning. Each call reads the
    files anew. Modules in the directory may import one another as ``from .helpers import x`` or ``import helpers``, at
    any time, and never get a module of the same name from elsewhere. Calls of ``mcp.run()`` during the import do
    nothing.

    Raises:
        MCPLoadError: there is no such directory or no ``main.py``, fastmcp cannot be imported, ``main.py`` fails or
            exits, or holds no server.
    """
    return load_mcp_folder(mcp_path)[0]


def load_mcp_folder(mcp_path: str | Path) -> "tuple[FastMCP[Any], Callable[..., Any] | None]":
    """As ``load_mcp_server``, with the reward function ``compute_reward`` of ``main.py``, if it has one."""
    main_file = find_mcp_server(mcp_path)
    directory = main_file.parent
    server_class = _import_fastmcp()
    package = DirectoryPackage(directory)
    try:
        with _not_running(server_class, main_file):
            module = package.load(MAIN_MODULE)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        reason = package.own_text(_reason(error, directory))
        raise MCPLoadError(f"Error importing {main_file}: {reason}") from error
    reward = getattr(module, REWARD_FUNCTION, None)
    return _server_in(module, server_class, main_file), reward if callable(reward) else None


def find_mcp_server(mcp_path: str | Path) -> Path:
    """The ``main.py`` in the directory ``mcp_path``; nothing is imported.

    Raises:
        NoMCPDirectoryError: there is no such directory, or no such file in it.
    """
    directory = Path(mcp_path)
    if not str(mcp_path).strip() or not directory.is_dir():
        kind = " as a directory" if directory.is_file() else ""
        raise NoMCPDirectoryError(
            f"The MCP directory '{mcp_path}' does not exist{kind}; name one that holds a main.py."
        )
    directory = directory.resolve()
    main_file = directory / f"{MAIN_MODULE}.py"
    if not main_file.is_file():
        raise NoMCPDirectoryError(f"No main.py found in '{directory}'; put the FastMCP server there.")
    return main_file


def _import_fastmcp() -> Any:
    try:
        from fastmcp import FastMCP
    except Exception as error:
        problem = f"fastmcp cannot be imported ({type(error).__name__}: {_text(error)})"
        if isinstance(error, ModuleNotFoundError) and error.name == "fastmcp":
            problem = "MCP tools need the package fastmcp"
        raise MCPLoadError(f"{problem}; {INSTALL_HINT}") from error
    return FastMCP


@contextmanager
def _not_running(server_class: Any, main_file: Path) -> Iterator[None]:
    """Let no server of ``server_class`` start to serve."""
    if not isinstance(server_class, type):
        yield
        return

    def warn(name: str) -> None:
        logger.warning(
            "%s calls %s() on import, which has no effect here; move the call under if __name__ == '__main__'.",
            main_file,
            name,
        )

    def substitute_for(name: str, method: Any) -> Any:
        async def run_async(*_: Any, **__: Any) -> None:
            warn(name)

        def run(*_: Any, **__: Any) -> None:
            warn(name)

        return run_async if inspect.iscoroutinefunction(method) else run

    own = {name: vars(server_class)[name] for name in _RUN_METHODS if name in vars(server_class)}
    offered = [name for name in _RUN_METHODS if callable(getattr(server_class, name, None))]
    for name in offered:
        setattr(server_class, name, substitute_for(name, getattr(server_class, name)))
    try:
        yield
    finally:
        for name in offered:
            if name in own:
                setattr(server_class, name, own[name])
            else:
                delattr(server_class, name)


def _server_in(module: ModuleType, server_class: Any, main_file: Path) -> "FastMCP[Any]":
    servers = {name: value for name, value in sorted(vars(module).items()) if isinstance(value, server_class)}
    if not servers:
        raise MCPLoadError(
            f"No FastMCP instance found in {main_file}; make one at the top level: "
            "from fastmcp import FastMCP; mcp = FastMCP('tools')."
        )
    name = PREFERRED_ATTRIBUTE if PREFERRED_ATTRIBUTE in servers else next(iter(servers))
    if len({id(server) for server in servers.values()}) > 1:
        logger.warning("%s holds several FastMCP servers (%s); taking %r.", main_file, ", ".join(servers), name)
    server: FastMCP[Any] = servers[name]
    return server


def _reason(error: BaseException, directory: Path) -> str:
    """``text (ValueError at tools.py, line 3)``, in one line."""
    place = _place(error, directory)
    at = f" at {place}" if place else ""
    if isinstance(error, SystemExit):
        return f"it exits on import, with code {error.code!r}{at}; move that under if __name__ == '__main__'"
    return f"{_text(error)} ({type(error).__name__}{at})"


def _place(error: BaseException, directory: Path) -> str | None:
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        places.append((error.filename, error.lineno))
    for file, line in reversed(places):
        if Path(file).is_relative_to(directory):
            return f"{Path(file).relative_to(directory)}, line {line}"
    return None


def _text(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else text_of(error, "")
    return " ".join(text.split())[:MAX_REASON_LENGTH] or "no message"
