"""What owners that are gone have left in the table: taken over, or removed on an operator's word.

Each function in a transaction that its caller began, so that of two who look at once only one takes a record.
"""

import sqlite3
from collections.abc import Callable, Sequence

from osmosis_ai.rollout.journal.table import PAGE_ROWS, select
from osmosis_ai.rollout.journal.types import SETTLED, JournalRecord, RolloutState


def claim(
    connection: sqlite3.Connection, owner: str, limit: int, is_alive: Callable[[str], bool]
) -> list[JournalRecord]:
    claimed: list[JournalRecord] = []
    for other in _owners_of_unsettled(connection):
        if len(claimed) == limit:
            break
        # Asked within the write transaction, so that of two who look at once only one takes the records.
        if other == owner or is_alive(other):
            continue
        abandoned = connection.execute(
            "SELECT id FROM rollouts WHERE settled_at IS NULL AND owner = ? ORDER BY accepted_at LIMIT ?",
            (other, limit - len(claimed)),
        ).fetchall()
        connection.executemany("UPDATE rollouts SET owner = ? WHERE id = ?", ((owner, row) for (row,) in abandoned))
        for identity in abandoned:
            claimed += select(connection, "WHERE id = ?", identity)
    return claimed


def _owners_of_unsettled(connection: sqlite3.Connection) -> list[str]:
    """Found by stepping through the index from owner to owner: there are few, and may be many records of each."""
    owners: list[str] = []
    after = ""
    while found := connection.execute(
        "SELECT owner FROM rollouts WHERE settled_at IS NULL AND owner > ? ORDER BY owner LIMIT 1", (after,)
    ).fetchone():
        (after,) = found
        owners.append(after)
    return owners


def purge_keys(connection: sqlite3.Connection, keys: Sequence[str], is_alive: Callable[[str], bool]) -> int:
    """Remove the records of ``keys`` except those that a living owner works on."""
    removed = 0
    for key in keys:
        found = connection.execute("SELECT id, state, owner FROM rollouts WHERE key = ?", (key,)).fetchone()
        if found is not None:
            row, state, owner = found
            if state in SETTLED or not is_alive(owner):
                removed += connection.execute("DELETE FROM rollouts WHERE id = ?", (row,)).rowcount
    return removed


def purge_abandoned_page(connection: sqlite3.Connection, state: RolloutState, is_alive: Callable[[str], bool]) -> int:
    """Remove up to ``PAGE_ROWS`` unsettled records in ``state`` of an owner that is gone."""
    for owner in _owners_of_unsettled(connection):
        if not is_alive(owner):
            removed = connection.execute(
                "DELETE FROM rollouts WHERE id IN"
                " (SELECT id FROM rollouts WHERE settled_at IS NULL AND owner = ? AND state = ? LIMIT ?)",
                (owner, state, PAGE_ROWS),
            ).rowcount
            if removed:
                return removed
    return 0
