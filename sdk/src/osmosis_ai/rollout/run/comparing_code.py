"""Whether the code that scores comes to the SDK's ``is_right``: read, and never run.

Then a ground truth that ``is_right`` cannot compare means a run without a reward, and is worth telling before the first
run. The reward of an agent that never comes to it may make anything of a ground truth: nothing is said of that.
"""

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from osmosis_ai.rollout.core.answers import is_right
from osmosis_ai.rollout.mcp.loader import MAIN_MODULE, REWARD_FUNCTION
from osmosis_ai.rollout.mcp.remote import is_url
from osmosis_ai.rollout.run.results.inputs import source_of

Place = tuple[str, str]
"""A module, and a name in it."""


def agent_scores_by_is_right(module: str | None, mcp: str | None = None, reward: str | None = None) -> bool:
    """Whether the reward of the agent that a command line names uses ``is_right``; see ``comes_to_is_right``."""
    if mcp is None or reward is not None:
        return comes_to_is_right(name for name in (module, reward) if name is not None)
    return not is_url(mcp) and comes_to_is_right([f"{MAIN_MODULE}:{REWARD_FUNCTION}"], Path(mcp))


def comes_to_is_right(names: Iterable[str], folder: Path | None = None) -> bool:
    """Whether any of ``names``, each a ``module:attribute``, uses ``is_right``, by itself or through what it calls.

    Modules are looked for in ``folder``, by default the current one, and the first ones in ``sys.path`` too. What is
    imported with a star or found while running is not seen.
    """
    here = folder or Path.cwd()
    named = [name.rpartition(":") for name in names]
    waiting: list[Place] = [(module, attribute.partition(".")[0]) for module, _, attribute in named]
    first, seen = {module for module, _ in waiting}, set[Place]()

    @cache
    def uses(module: str) -> dict[str, set[Place]]:
        file = source_of(module, [here, *(map(Path, sys.path) if module in first else ())])
        return {} if file is None else _uses(file, module)

    while waiting:
        place = waiting.pop()
        module, name = place
        if name == is_right.__name__ and module.partition(".")[0] == "osmosis_ai":
            return True
        if place not in seen:
            seen.add(place)
            waiting += uses(module).get(name, ())
    return False


def _uses(file: Path, module: str) -> dict[str, set[Place]]:
    """What each name of a file stands for or uses."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return {}
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    imported = dict(_imports(tree, package))
    uses: dict[str, set[Place]] = {name: {place} for name, place in imported.items()}
    for name, node in _definitions(tree.body):
        uses.setdefault(name, set()).update(_used(node, module, imported.get))
    return uses


def _imports(tree: ast.AST, package: str) -> Iterator[tuple[str, Place]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                yield bound, (alias.name if alias.asname else bound, "")
        elif isinstance(node, ast.ImportFrom):
            try:
                source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:
                continue
            for alias in node.names:
                yield alias.asname or alias.name, (source, alias.name)


def _definitions(body: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.AST]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.If | ast.Try | ast.With):
            inner = (node.body, getattr(node, "orelse", []), getattr(node, "finalbody", []))
            yield from _definitions(statement for statements in inner for statement in statements)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((n.id, node) for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))


def _used(node: ast.AST, module: str, imported: Callable[[str], Place | None]) -> Iterator[Place]:
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield module, part.id
        elif isinstance(part, ast.Attribute) and (chain := _chain(part)) is not None:
            source, name = imported(chain[0]) or (module, chain[0])
            yield ".".join(filter(None, (source, name, *chain[1:-1]))), chain[-1]


def _chain(attribute: ast.Attribute) -> list[str] | None:
    """``a.b.c`` as its names."""
    names, value = [attribute.attr], attribute.value
    while isinstance(value, ast.Attribute):
        names.append(value.attr)
        value = value.value
    return [value.id, *reversed(names)] if isinstance(value, ast.Name) else None
