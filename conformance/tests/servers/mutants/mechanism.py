"""A mutant is ``SmallServer`` with one planted defect: data, most of them a line.

    mutant("sends-no-key", "callbacks.key", credentials=lambda self, usual, rollout, path: {})

A defect replaces attributes of the server: a function gets the server, what the method usually does, and its arguments;
anything else takes the attribute's place.
"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from servers.small import SmallServer

MUTANTS: dict[str, "Mutant"] = {}


@dataclass(frozen=True)
class Mutant:
    """One defect, and what must find it."""

    name: str
    finds: frozenset[str]
    """The checks that fail because of it, and no others."""
    server: type[SmallServer]
    needs: str = ""
    """``key``: it is started with a key. ``process``: as a process."""
    is_silent: bool = False
    """Whether the defect shows as something that never comes."""
    is_timed: bool = False
    """Whether it is found by how soon something comes, or keeps the event loop busy: nothing may run beside it."""
    is_total: bool = False
    """Whether nothing works because of it, so that other checks fail too."""
    beside: frozenset[str] = frozenset()
    """Checks that play what an audit must see, and do not fail themselves."""
    file: str = ""
    """The module that registers it."""


def mutant(
    name: str,
    finds: str,
    *,
    needs: str = "",
    silent: bool = False,
    timed: bool = False,
    total: bool = False,
    beside: str = "",
    **defect: Any,
) -> None:
    """Register one; ``finds`` are ids of checks with spaces between."""
    places = {attribute: _around(attribute, value) if callable(value) else value for attribute, value in defect.items()}
    server = type(name, (SmallServer,), places)
    assert name not in MUTANTS, name
    assert all(hasattr(SmallServer, attribute) for attribute in defect), name
    file = sys._getframe(1).f_code.co_filename
    MUTANTS[name] = Mutant(
        name, frozenset(finds.split()), server, needs, silent, timed, total, frozenset(beside.split()), file
    )


def _around(attribute: str, defect: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: SmallServer, *arguments: Any, **named: Any) -> Any:
        usual = getattr(super(type(self), self), attribute)
        return defect(self, usual, *arguments, **named)

    async def awaited(self: SmallServer, *arguments: Any) -> Any:
        found = method(self, *arguments)
        return await found if inspect.isawaitable(found) else found

    # A route is told from its function what it is.
    return awaited if inspect.iscoroutinefunction(getattr(SmallServer, attribute)) else method
