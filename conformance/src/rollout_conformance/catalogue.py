"""The catalogue: every check, in order, and how some are chosen."""

from collections.abc import Awaitable, Callable, Sequence
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from rollout_conformance.vocabulary import Check, Phase, UsageError

if TYPE_CHECKING:
    from rollout_conformance.kit import Kit

Body = Callable[["Kit"], Awaitable[None]]

GROUPS = {
    "init": "The init and its answer",
    "http": "The rest of the HTTP interface",
    "auth": "The server's own key",
    "invalid": "Bodies that must be refused",
    "idempotency": "The same init again",
    "callbacks": "Every call of the server",
    "chat": "Calls for a completion",
    "tools": "Tool calls of the model",
    "completed": "The terminal result",
    "errors": "Rollouts that fail",
    "retries": "Calls for a completion that fail",
    "delivery": "Results that do not get through",
    "wire": "Answers that go wrong on the way",
    "state": "How a rollout stands, and its end on request",
    "load": "Many rollouts",
    "ids": "Odd ids and texts",
    "drain": "The end of the server (needs --command, or --server-pid)",
    "limits": "How long a rollout may run (needs --command)",
}
_checks: list[Check] = []


def check(id: str, sentences: str, summary: str, phase: Phase = Phase.TOGETHER) -> Callable[[Body], Body]:  # noqa: A002 - its name in reports
    """Put a function into the catalogue; ``sentences`` are names with spaces between. See ``vocabulary.Check``."""

    def put(body: Body) -> Body:
        _checks.append(Check(id, tuple(sentences.split()), summary, phase, body))
        return body

    return put


@cache
def all_checks() -> tuple[Check, ...]:
    """Every check, by group."""
    import_module("rollout_conformance.checks")
    order = list(GROUPS)
    return tuple(sorted(_checks, key=lambda one: order.index(one.group)))


def select(only: Sequence[str] = (), skip: Sequence[str] = ()) -> tuple[Check, ...]:
    """The checks that ``only`` names (all, if empty) and ``skip`` does not.

    A name is an id (``init.tools``), a group (``init``), or a pattern (``*.hostile``).

    Raises:
        UsageError: a name fits no check, or nothing is left.
    """
    known = all_checks()
    for name in (*only, *skip):
        if not any(_fits(one, name) for one in known):
            raise UsageError(f"There is no check {name!r}: --list shows them.")
    chosen = tuple(
        one
        for one in known
        if (not only or any(_fits(one, name) for name in only)) and not any(_fits(one, name) for name in skip)
    )
    if not chosen:
        raise UsageError("--only and --skip leave no check to run.")
    return chosen


def _fits(one: Check, name: str) -> bool:
    return name in (one.id, one.group) or fnmatchcase(one.id, name)
