"""Calls in the author's coroutines that block the event loop, as far as they can be seen in the source.

Seen are calls by their name, or the name they were imported under, in the module of the agent and in those beside it
that it imports, at any remove. A plain function is not looked into: a ``Toolbox`` calls it in a thread.
"""

import ast
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.core.where import in_folder, is_foreign

MAX_FILES = 50
MAX_FILE_BYTES = 1_000_000

_IN_A_THREAD = "make it a plain tool, or await asyncio.to_thread(...)"
_REMEDIES = {
    "time.sleep": "await asyncio.sleep(...)",
    **dict.fromkeys(
        (f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "getoutput")),
        "await asyncio.create_subprocess_exec(...)",
    ),
    "os.system": "await asyncio.create_subprocess_shell(...)",
    "urllib.request.urlopen": _IN_A_THREAD,
    "sqlite3.connect": _IN_A_THREAD,
    **dict.fromkeys(
        (
            f"{package}.{verb}"
            for package in ("requests", "httpx")
            for verb in ("get", "post", "put", "patch", "delete", "request")
        ),
        "await a call of httpx.AsyncClient",
    ),
}


def blocking_calls(agent_loop: Any) -> list[tuple[str, str]]:
    """Each such call: ``agent.py:12``, and a sentence on what to do."""
    found: list[tuple[str, str]] = []
    name = type(agent_loop).__module__
    folder = _folder_of(name)
    queue = [name] if folder else []
    for name in queue:  # grows
        module = sys.modules[name]
        file = str(module.__file__)
        with suppress(OSError, ValueError, SyntaxError, RecursionError):
            stat = Path(file).stat()
            if stat.st_size <= MAX_FILE_BYTES:
                calls, imported = _in_file(file, module.__package__ or "", stat.st_mtime_ns)
                shown = in_folder(file) or Path(file).name
                found += [(f"{shown}:{line}", sentence) for line, sentence in calls]
                beside = [each for each in imported if each not in queue and _folder_of(each) == folder]
                queue += beside[: MAX_FILES - len(queue)]
    return found


def _folder_of(name: str) -> Path | None:
    """That of a loaded module, if it is the author's."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return Path(file).parent if isinstance(file, str) and not is_foreign(file) else None


@lru_cache(maxsize=2 * MAX_FILES)
def _in_file(file: str, package: str, mtime_ns: int) -> tuple[tuple[tuple[int, str], ...], tuple[str, ...]]:
    """The blocking calls, and what may be a module that is imported."""
    tree = ast.parse(Path(file).read_bytes())
    names = dict(_imported(tree))
    calls = (
        (call, called)
        for function in ast.walk(tree)
        if isinstance(function, ast.AsyncFunctionDef)
        for call in _calls(function)
        if (called := _dotted(call.func, names)) in _REMEDIES
    )
    what = "blocks every rollout of the process"
    found = {(call.lineno, f"{called} {what}: {_REMEDIES[called]}.") for call, called in calls}
    return tuple(sorted(found)), tuple(dict.fromkeys(_modules(tree, package)))


def _modules(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            with suppress(ImportError):  # beyond the top: nothing that is loaded
                origin = resolve_name("." * node.level + (node.module or ""), package)
                yield origin
                yield from (f"{origin}.{alias.name}" for alias in node.names)


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Names of the module, and what they stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (top, top)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    """Those that a coroutine makes itself, not in a function of its own."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(child, ast.Call):
            yield child
        yield from _calls(child)


def _dotted(function: ast.expr, names: dict[str, str]) -> str:
    parts: list[str] = []
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if not isinstance(function, ast.Name) or function.id not in names:
        return ""
    return ".".join([names[function.id], *reversed(parts)])
