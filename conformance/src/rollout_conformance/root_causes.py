"""Which failures follow from another: one cause is one failure, with its consequences under it.

A failure follows from another one where

1. it is an audit's, and every rollout that it is about was played by a check that failed as well;
2. the earlier one is an audit of ``BASIC``, not so itself, and found fault with rollouts of this check;
3. ``RESTS_ON`` says that what it checks takes for granted what the other one checks, which fails in all its cases; or
   it fails in some, and by ``IN_SOME_CASES`` those are the other one's;
4. something was waited for in vain, or there was no room, and the other one is ``POOL``, which found that calls wait
   for a connection, or ``COURIER``, which found that results wait for one another; or there was no room, what was
   refused has kept its key, or it was not told when to ask again, and the other one is ``FULL``;
5. something was waited for in vain, or there was no room, and the other one is ``HOLDER``, which saw that a pause of
   one holds up others;
6. what usually lies behind it is what the other one is for, by ``WHERE``: what was not on record yet, a proxy's page;
7. both say the same, but for numbers and quoted values, as where no init is accepted at all; or both saw the same of
   ``ONE_CAUSE``, as a result that differs from the one before.

What was not exercised because another check failed says so itself, and stands under that.

A consequence is told too, under its cause, and decides the verdict like any failure: it may have a cause of its own.
What usually lies behind it is what lies behind its cause: a hint of its own would send whoever follows it elsewhere.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from rollout_conformance.cases import SOME
from rollout_conformance.usual_causes import (
    A_PAGE,
    FEW_CONNECTIONS,
    KEY_KEPT,
    MADE_ANEW,
    NO_ROOM,
    NOT_DELIVERED,
    NOT_ON_RECORD,
    TAKEN_FOR_CUT_OFF,
    WITHOUT_TIME,
    cause_of,
)
from rollout_conformance.vocabulary import Result, Status

RESTS_ON: tuple[tuple[str, str], ...] = (
    ("auth.*", "auth.missing"),
    ("invalid.named", "invalid.fields"),
    ("invalid.odd_url", "invalid.server_url"),
    ("idempotency.*", "idempotency.while_running"),
    ("init.hang_up", "idempotency.while_running"),
    ("init.hang_up", "idempotency.after_completion"),
    ("init.hang_up", "idempotency.concurrent"),
    ("tools.*", "tools.answered"),
    ("tools.*", "tools.parallel"),
    ("errors.*", "errors.refused"),
    ("retries.*", "retries.server_error"),
    ("retries.aborted_key", "retries.aborted"),
    ("delivery.*", "delivery.server_error"),
    ("load.*", "load.concurrent"),
    ("load.*", "load.beside_paused"),
    ("state.*", "load.beside_owed"),
    ("idempotency.owed", "load.beside_owed"),
    ("completed.tool_counts", "completed.counts"),
    ("chat.more_sampling", "chat.sampling"),
    ("tools.odd_ids", "tools.equal"),
    ("idempotency.two_keys", "callbacks.url"),
    ("state.newest", "callbacks.url"),
    ("callbacks.every", "callbacks.url"),
    ("chat.large_number", "chat.unknown_fields"),
    ("chat.bare", "chat.null_fields"),
    ("completed.latency", "retries.too_many"),
    ("completed.call_latency", "retries.too_many"),
    ("callbacks.every_key", "callbacks.key"),
    ("retries.aborted_long", "retries.aborted"),
    ("state.encoded", "state.cancel"),
    ("state.cancel_again", "state.cancel"),
    ("state.cancel_hangs_up", "state.cancel"),
    ("state.cancel_hangs_up", "callbacks.order"),
    ("state.health", "state.cancel"),
    ("idempotency.after_error", "state.cancel"),
    ("drain.repeated_delivered", "drain.repeated"),
    ("drain.delivered", "drain.repeated_delivered"),
    ("drain.state", "drain.repeated_delivered"),
    ("drain.refused_same", "delivery.refused_same"),
    ("drain.repeated", "drain.killed"),
    ("drain.repeated", "drain.cut_off"),
    ("state.refused", "state.unknown"),
    ("state.refused", "state.cancel_unknown"),
    ("drain.kept", "drain.killed"),
    ("drain.owed_longer", "drain.results"),
    ("drain.results", "errors.no_reward"),
    ("drain.results", "completed.outcome"),
    ("drain.results", "completed.shape"),
    ("drain.results", "errors.message"),
    ("chat.*", "chat.one_at_a_time"),
    ("retries.too_many", "retries.aborted"),
    ("retries.aborted_key", "retries.not_whole"),
    ("idempotency.owed", "delivery.server_error"),
    ("idempotency.owed", "delivery.twice"),
    ("idempotency.owed", "idempotency.callback_key"),
    ("delivery.retry_after", "delivery.delay"),
    ("drain.finish_reasons", "errors.finish_reason"),
    ("drain.results", "delivery.server_error"),
    ("drain.kept", "delivery.server_error"),
    ("state.cancel_ended", "delivery.server_error"),
    ("wire.cut_body", "delivery.cut"),
    ("wire.cut_body", "retries.cut"),
)
"""Patterns of checks, each with the check whose promise they take for granted; an order within a group."""

IN_SOME_CASES = {"delivery.cut": "wire.cut_body", "retries.cut": "wire.cut_body"}
"""Where not all of its cases fail, they are those of the other one."""

POOL, COURIER, FULL = "load.concurrent", "load.beside_owed", "load.overload"
HOLDER = "load.beside_paused"

WHERE = {NOT_ON_RECORD: "drain.killed", A_PAGE: "retries.page"}

IN_VAIN = "; got none within "
"""Of what was waited for."""

ONE_CAUSE = frozenset({MADE_ANEW, KEY_KEPT, TAKEN_FOR_CUT_OFF})

BASIC = frozenset(
    {"callbacks.order", "callbacks.url", "callbacks.json", "callbacks.rollout_id", "callbacks.every", "completed.shape"}
)
"""Audits of what nearly every check relies on."""

_VARIABLE = re.compile(r"(?:GET|POST) \S+|'[^']*'|\"[^\"]*\"|\{.*\}|\[.*\]|\(rollout of .*\)|\d[\w.]*")


def with_causes(results: Sequence[Result]) -> tuple[Result, ...]:
    """The results, each consequence with its ``cause``, and the hint of that."""
    failed = [result for result in results if result.status is Status.FAILED]
    # A key that is kept shows in whatever finds no room; ``FULL`` is what it is a matter of.
    basic = [one for one in failed if one.check.id in BASIC and one.usually != KEY_KEPT and not _blamed(one, failed)]
    causes: dict[str, str] = {}
    for position, result in enumerate(failed):
        cause = _cause(result, failed[:position], failed, basic)
        # Of two that each follow from the other, the later one stands for itself.
        causes[result.check.id] = "" if _root(cause, causes, cause) == result.check.id else cause
    hints = {one.check.id: cause_of(one) for one in failed}

    def under_its_cause(one: Result) -> Result:
        # What was not exercised says itself for want of what.
        root = _root(one.check.id, causes, one.cause if one.cause in causes else "")
        return replace(one, cause=root, usually=hints.get(root, one.usually))

    return tuple(map(under_its_cause, results))


def _cause(result: Result, before: Sequence[Result], failed: Sequence[Result], basic: Sequence[Result]) -> str:
    own = result.check.id
    whole = {one.check.id for one in failed if not (one.usually or "").startswith(SOME)}
    if own == POOL and result.usually == FEW_CONNECTIONS:
        return ""
    # What is not delivered keeps its place, so that there is none for others in the end.
    is_waiting = result.usually in (NOT_DELIVERED, NO_ROOM) or IN_VAIN in result.reason
    for root, usually in ((POOL, FEW_CONNECTIONS), (COURIER, NOT_DELIVERED)):
        if own != root and is_waiting and any(one.check.id == root and one.usually == usually for one in failed):
            return root
    if blamed := _blamed(result, failed):
        return blamed
    if found := next(
        (one.check.id for one in basic if one is not result and not result.subjects and own in _names(one.subjects)), ""
    ):
        return found
    if (
        own != HOLDER
        and (IN_VAIN in result.reason or result.usually == NO_ROOM)
        and any(one.check.id == HOLDER and IN_VAIN not in one.reason and one.usually != NO_ROOM for one in failed)
    ):
        return HOLDER
    if own != FULL and result.usually in (NO_ROOM, KEY_KEPT, WITHOUT_TIME) and FULL in whole:
        return FULL
    for pattern, root in RESTS_ON:
        if root in whole and root != own and fnmatchcase(own, pattern):
            return root
    if own not in whole and IN_SOME_CASES.get(own) in whole:
        return IN_SOME_CASES[own]
    where = WHERE.get(result.usually or "", own)
    if where != own and any(one.check.id == where for one in failed):
        return where
    # What another audit finds is no cause of what a check saw for itself; so nothing can be its own cause in the end.
    alike = (
        one
        for one in before
        if _plain(one.reason) == _plain(result.reason)
        or (one.usually == result.usually and one.usually in ONE_CAUSE and own != FULL)
    )
    return next((one.check.id for one in alike if result.subjects or not one.subjects), "")


def _blamed(audit: Result, failed: Sequence[Result]) -> str:
    """The first failed check of those whose rollouts an audit is about, if all of them failed; else an empty text."""
    own, ids = audit.check.id, [one.check.id for one in failed]
    # The most general matter first: where no result is delivered again, it is not that of the check that wants one.
    blamed = [
        next((name for one in whose.split("|") for name in ids if name == one or name.startswith(f"{one}.")), own)
        for whose in audit.subjects
    ]
    return min(blamed, key=ids.index) if blamed and own not in blamed else ""


def _names(subjects: Collection[str]) -> set[str]:
    return {name for whose in subjects for name in whose.split("|")}


def _plain(reason: str) -> str:
    return _VARIABLE.sub("?", reason)


def _root(own: str, causes: dict[str, str], otherwise: str = "") -> str:
    """Where the causes of ``own`` begin; ``otherwise`` if it has none."""
    cause = causes.get(own) or otherwise
    while further := causes.get(cause, ""):
        cause = further
    return cause
