"""What the results of a run depend on, as digests: a run is only gone on with if all of it is the same."""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.mcp.remote import is_url


def inputs_of(
    dataset: str | Path,
    *,
    modules: Iterable[str | None],
    mcp: str | Path | None = None,
    model: dict[str, Any],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Digests of the dataset and of the user's own source files, the model, and the settings.

    ``modules`` name functions and agents as ``module:attribute``; ``mcp`` is a directory of tools,
    or a URL, of which there are no files.
    """
    files = source_files(name.partition(":")[0] for name in modules if name)
    if mcp and not is_url(mcp):
        files |= {file.resolve() for file in Path(mcp).rglob("*.py")}
    return {
        "dataset": {str(dataset): file_digest(Path(dataset))},
        "agent": {_shown(file): file_digest(file) for file in sorted(files)},
        "model": model,
        "settings": settings,
    }


def changed_inputs(old: Any, new: dict[str, Any]) -> list[str]:
    """Names of what differs, such as ``rewards.py`` or ``settings max_turns``."""
    names = []
    for group, values in new.items():
        before = old.get(group) if isinstance(old, dict) else None
        before = before if isinstance(before, dict) else {}
        keys = [*values, *(key for key in before if key not in values)]
        differing = [key for key in keys if before.get(key) != values.get(key)]
        names += [f"{group} {key}" if group in ("model", "settings") else str(key) for key in differing]
    return names


def file_digest(path: Path) -> str | None:
    """``sha256:`` and the digest in hexadecimal; ``None`` where nothing can be read."""
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError:
        return None


def source_files(modules: Iterable[str]) -> set[Path]:
    """The files of ``modules`` and of what they import from the current directory, found without running any.

    Running them here is not an option: ``osmosis trainer`` leaves that to the server it starts.
    """
    waiting, found, seen = [(name, True) for name in modules], set[Path](), set[str]()
    while waiting:
        name, is_named = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        file = source_of(name, [Path.cwd(), *(map(Path, sys.path) if is_named else ())])
        if file is None or file in found:
            continue
        found.add(file)
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        waiting += [(imported, False) for imported in _imports_of(file, package)]
    return found


def source_of(name: str, folders: Iterable[Path]) -> Path | None:
    """The file of the module ``name`` in the first of ``folders`` that has it."""
    for folder in folders:
        module = folder.joinpath(*name.split("."))
        for file in (module.with_name(f"{module.name}.py"), module / "__init__.py"):
            if file.is_file():
                return file.resolve()
    return None


def _imports_of(file: Path, package: str) -> Iterable[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            try:
                name = importlib.util.resolve_name(name, package)
            except ImportError:
                continue
            # What is imported from a package may be a module of it.
            yield from (name, *(f"{name}.{alias.name}" for alias in node.names))


def _shown(file: Path) -> str:
    here = Path.cwd().resolve()
    return str(file.relative_to(here)) if file.is_relative_to(here) else str(file)
