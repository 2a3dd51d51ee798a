"""The journal's two tables and what is done to them, each function in a transaction that its caller began.

``rollouts`` has a small row for each record, so that states change cheaply; ``results`` has the payloads, a row for
each record with one; the view ``records`` joins them. A record is unsettled exactly if ``settled_at`` is null.
A function that raises ``JournalError`` has changed nothing.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from osmosis_ai.rollout.journal.types import (
    SETTLED,
    Acceptance,
    JournalRecord,
    Move,
    RolloutState,
    next_state,
    settling_move,
    storable_error,
)

PAGE_ROWS = 200


SCHEMA = (
    """
    CREATE TABLE rollouts (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        rollout_id TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        server_url TEXT NOT NULL,
        api_key TEXT,
        state TEXT NOT NULL,
        owner TEXT NOT NULL,
        accepted_at REAL NOT NULL,
        finished_at REAL,
        reopened_at REAL,
        settled_at REAL,
        delivery_attempts INTEGER NOT NULL DEFAULT 0,
        last_error TEXT,
        init_reply BLOB NOT NULL,
        request BLOB
    )
    """,
    "CREATE TABLE results (id INTEGER PRIMARY KEY, result BLOB NOT NULL)",
    "CREATE VIEW records AS SELECT * FROM rollouts LEFT JOIN results USING (id)",
    "CREATE INDEX rollouts_by_rollout_id ON rollouts (rollout_id)",
    "CREATE INDEX rollouts_by_state ON rollouts (state, settled_at)",
    "CREATE INDEX unsettled_by_owner ON rollouts (owner, accepted_at) WHERE settled_at IS NULL",
    "CREATE TRIGGER remove_result AFTER DELETE ON rollouts BEGIN DELETE FROM results WHERE id = old.id; END",
)


def accept(
    connection: sqlite3.Connection, acceptance: Acceptance, owner: str, now: float, replace_settled_before: float | None
) -> JournalRecord | None:
    if _insert(connection, acceptance, owner, now):
        return None
    # Without a time, no row is older than NULL, and nothing is replaced.
    replaced = connection.execute(
        "DELETE FROM rollouts WHERE key = ? AND settled_at < ?", (acceptance.key, replace_settled_before)
    ).rowcount
    if replaced and _insert(connection, acceptance, owner, now):
        return None
    return get(connection, acceptance.key)


def _insert(connection: sqlite3.Connection, acceptance: Acceptance, owner: str, now: float) -> bool:
    values = (
        acceptance.key,
        acceptance.rollout_id,
        acceptance.fingerprint,
        acceptance.server_url,
        acceptance.api_key,
        acceptance.init_reply,
        acceptance.request,
        RolloutState.ACCEPTED,
        owner,
        now,
    )
    return (
        connection.execute(
            # The unique key keeps two processes from running one rollout: the second inserts nothing.
            "INSERT INTO rollouts"
            " (key, rollout_id, fingerprint, server_url, api_key, init_reply, request, state, owner, accepted_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
            values,
        ).rowcount
        == 1
    )


def finish(connection: sqlite3.Connection, key: str, result: bytes, owner: str, now: float) -> bool:
    row, state = _moved(connection, key, Move.FINISH)
    if state is None:
        return False
    # Without the request: nothing needs it now, and it is often most of the row.
    connection.execute(
        "UPDATE rollouts SET state = ?, owner = ?, finished_at = ?, request = NULL WHERE id = ?",
        (state, owner, now, row),
    )
    connection.execute("INSERT INTO results (id, result) VALUES (?, ?)", (row, result))
    return True


def settle(
    connection: sqlite3.Connection, key: str, target: RolloutState, attempts: int, error: str | None, now: float
) -> bool:
    row, state = _moved(connection, key, settling_move(target))
    if state is None:
        return False
    connection.execute(
        "UPDATE rollouts SET state = ?, settled_at = ?, delivery_attempts = ?, last_error = ? WHERE id = ?",
        (state, now, attempts, storable_error(error), row),
    )
    return True


def note_attempt(connection: sqlite3.Connection, key: str, attempts: int, error: str) -> None:
    connection.execute(
        "UPDATE rollouts SET delivery_attempts = ?, last_error = ? WHERE key = ? AND state = ?",
        (attempts, storable_error(error), key, RolloutState.FINISHED),
    )


def reopen(connection: sqlite3.Connection, key: str, owner: str, now: float) -> JournalRecord | None:
    if get(connection, key) is None:
        return None
    row, state = _moved(connection, key, Move.REOPEN)
    if state is None:
        return None
    connection.execute(
        "UPDATE rollouts SET state = ?, owner = ?, reopened_at = ?, settled_at = NULL, delivery_attempts = 0,"
        " last_error = NULL WHERE id = ?",
        (state, owner, now, row),
    )
    return get(connection, key)


def _moved(connection: sqlite3.Connection, key: str, move: Move) -> tuple[int, RolloutState | None]:
    """The row of ``key`` and the state that ``move`` takes it to; see ``types.next_state``."""
    # Then an UPDATE by row: `UPDATE ... RETURNING` in one was slower (48 against 40 µs a rollout).
    found = connection.execute("SELECT id, state FROM rollouts WHERE key = ?", (key,)).fetchone()
    row, state = found if found is not None else (0, None)
    return row, next_state(key, None if state is None else RolloutState(state), move)


def get(connection: sqlite3.Connection, key: str) -> JournalRecord | None:
    found = _select(connection, "SELECT * FROM records WHERE key = ?", (key,))
    return found[0] if found else None


def find(connection: sqlite3.Connection, rollout_id: str) -> list[JournalRecord]:
    return _select(connection, "SELECT * FROM records WHERE rollout_id = ? ORDER BY id DESC", (rollout_id,))


def records(
    connection: sqlite3.Connection, states: Sequence[RolloutState], limit: int, offset: int
) -> list[JournalRecord]:
    return _select(
        connection,
        # The page is found before the payloads are joined: they would all be sorted otherwise.
        "SELECT * FROM records WHERE id IN (SELECT id FROM rollouts WHERE state IN (SELECT value FROM json_each(?))"
        " ORDER BY id DESC LIMIT ? OFFSET ?) ORDER BY id DESC",
        (json.dumps(states), limit, offset),
    )


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
            claimed += _select(connection, "SELECT * FROM records WHERE id = ?", identity)
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


def counts(connection: sqlite3.Connection) -> dict[RolloutState, int]:
    found = dict(connection.execute("SELECT state, count(*) FROM rollouts GROUP BY state"))
    return {state: found.get(state, 0) for state in RolloutState}


def oldest_unsettled(connection: sqlite3.Connection) -> float | None:
    found = connection.execute("SELECT min(accepted_at) FROM rollouts WHERE settled_at IS NULL").fetchone()
    return None if found is None else found[0]


def prune_page(connection: sqlite3.Connection, state: RolloutState, settled_before: float) -> int:
    """Remove up to ``PAGE_ROWS`` records in ``state``, the longest settled first."""
    return connection.execute(
        "DELETE FROM rollouts WHERE id IN"
        " (SELECT id FROM rollouts WHERE state = ? AND settled_at < ? ORDER BY settled_at LIMIT ?)",
        (state, settled_before, PAGE_ROWS),
    ).rowcount


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


def _select(connection: sqlite3.Connection, query: str, arguments: Sequence[object]) -> list[JournalRecord]:
    found = connection.execute(query, arguments)
    names = [name for name, *_ in found.description]
    return [_record(dict(zip(names, row, strict=True))) for row in found]


def _record(values: dict[str, Any]) -> JournalRecord:
    del values["id"]
    return JournalRecord(**values | {"state": RolloutState(values["state"])})
