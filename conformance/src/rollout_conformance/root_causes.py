"""Which failures follow from another: one cause is one failure, with its consequences under it.

A failure follows from an earlier one where

1. it is an audit's, and every rollout that it is about was played by a check that failed as well;
2. ``RESTS_ON`` says that what it checks takes for granted what the other one checks;
3. both say the same, but for numbers and quoted values, as where no init is accepted at all.

A consequence is told too, under its cause, and decides the verdict like any failure: it may have a cause of its own.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from rollout_conformance.vocabulary import Result, Status

RESTS_ON: tuple[tuple[str, str], ...] = (
    ("auth.*", "auth.missing"),
    ("invalid.named", "invalid.fields"),
    ("invalid.odd_url", "invalid.server_url"),
    ("idempotency.*", "idempotency.while_running"),
    ("tools.*", "tools.answered"),
    ("errors.*", "errors.refused"),
    ("retries.*", "retries.server_error"),
    ("retries.aborted_key", "retries.aborted"),
    ("delivery.*", "delivery.server_error"),
    ("load.*", "load.concurrent"),
    ("completed.tool_counts", "completed.counts"),
    ("chat.more_sampling", "chat.sampling"),
)
"""Patterns of checks, each with the check whose promise they take for granted; an order within a group."""

_VARIABLE = re.compile(r"(?:GET|POST) \S+|'[^']*'|\"[^\"]*\"|\{.*\}|\[.*\]|\(rollout of .*\)|\d[\w.]*")


def with_causes(results: Sequence[Result]) -> tuple[Result, ...]:
    """The results, each consequence with its ``cause``."""
    failed = [result for result in results if result.status is Status.FAILED]
    causes = {result.check.id: _cause(result, failed[:position], failed) for position, result in enumerate(failed)}
    return tuple(replace(one, cause=_root(one.check.id, causes)) for one in results)


def _cause(result: Result, before: Sequence[Result], failed: Sequence[Result]) -> str:
    own, ids = result.check.id, [one.check.id for one in failed]
    blamed = [next((name for name in ids if name == one or name.startswith(f"{one}.")), own) for one in result.subjects]
    if blamed and own not in blamed:
        return min(blamed, key=ids.index)
    for pattern, root in RESTS_ON:
        if root in ids and root != own and fnmatchcase(own, pattern):
            return root
    # What an audit finds is no cause of what a check saw for itself; so nothing can be its own cause in the end.
    alike = (
        one for one in before if _plain(one.reason) == _plain(result.reason) and (result.subjects or not one.subjects)
    )
    return next((one.check.id for one in alike), "")


def _plain(reason: str) -> str:
    return _VARIABLE.sub("?", reason)


def _root(own: str, causes: dict[str, str]) -> str:
    cause = causes.get(own, "")
    while further := causes.get(cause, ""):
        cause = further
    return cause
