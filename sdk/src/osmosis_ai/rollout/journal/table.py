"""The journal's tables and what is done to them, each function in a transaction that its caller began.

``rollouts`` has a small row for each record, so that states change cheaply; ``results`` has the payloads, a row for
each record with one; the view ``records`` joins them. A record is unsettled exactly if ``settled_at`` is null.
``refused_messages`` has a row for each record whose result goes out without its messages, ``polls`` for each whose
result somebody asked for elsewhere than where it runs. ``clock`` and ``gaps`` are the journal's time (see ``clock``).
``secrets`` has one row. An SDK that does not know these five leaves them alone.
A function that raises ``JournalError`` has changed nothing.
"""

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from osmosis_ai.rollout.journal.base import SECRET_BYTES
from osmosis_ai.rollout.journal.clock import Clock, Gap, Sign, Timeline
from osmosis_ai.rollout.journal.errors import UnknownKeyError
from osmosis_ai.rollout.journal.types import (
    SETTLED,
    Acceptance,
    JournalRecord,
    Move,
    Payload,
    RolloutState,
    next_state,
    settling_move,
    storable_error,
)

PAGE_ROWS = 200
SIGNING = "signing"
"""The name of the one secret (``Journal.sign``), by which its row is known when a damaged file is read."""
_STATES = {state.value: state for state in RolloutState}
"""What ``RolloutState(value)`` gives, in a tenth of the time."""


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
_LATER_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS refused_messages (id INTEGER PRIMARY KEY, refused_at REAL NOT NULL)",
    # Row ids are used again.
    """
    CREATE TRIGGER IF NOT EXISTS remove_refused_messages AFTER DELETE ON rollouts
        BEGIN DELETE FROM refused_messages WHERE id = old.id; END
    """,
    "CREATE TABLE IF NOT EXISTS polls (id INTEGER PRIMARY KEY, polled_at REAL NOT NULL)",
    """
    CREATE TRIGGER IF NOT EXISTS remove_polls AFTER DELETE ON rollouts BEGIN DELETE FROM polls WHERE id = old.id; END
    """,
    """
    CREATE TABLE IF NOT EXISTS secrets (id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL, secret BLOB NOT NULL)
    """,
)
_TIME_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY CHECK (id = 1), boot TEXT, steady REAL, time REAL)",
    "CREATE TABLE IF NOT EXISTS gaps (ended_at REAL, away_seconds REAL, unproven_seconds REAL)",
)


def begin_timeline(connection: sqlite3.Connection, clock: Clock, *, shared: bool, serves: bool) -> Timeline:
    """The journal's time from now on, in a transaction of its own.

    That also proves that the file can be written, waits for whoever holds it, and has SQLite make its ``-wal``.

    Args:
        shared: whether another process has it open.
        serves: whether this one serves rollouts; an operator's look is no sign of life.
    """
    connection.execute("BEGIN IMMEDIATE")
    for statement in (*_LATER_SCHEMA, *(_TIME_SCHEMA if serves else ())):
        connection.execute(statement)
    if not serves and not _has_table(connection, "clock"):
        connection.execute("COMMIT")
        return Timeline(clock)
    last = connection.execute("SELECT boot, steady, time FROM clock").fetchone()
    if last is None:  # an older SDK's, or one that was salvaged: its last record is its last sign of life
        (latest,) = connection.execute(
            "SELECT max(max(accepted_at, ifnull(finished_at, 0), ifnull(settled_at, 0))) FROM rollouts"
        ).fetchone()
        last = None if latest is None else (None, 0.0, latest)
    gaps = connection.execute("SELECT ended_at, away_seconds, unproven_seconds FROM gaps ORDER BY ended_at").fetchall()
    timeline = Timeline(clock, Sign(*last) if last is not None else None, [Gap(*gap) for gap in gaps], shared=shared)
    if serves:
        if (gap := timeline.new_gap) is not None:
            row = (gap.ended_at, gap.away_seconds, gap.unproven_seconds)
            connection.execute("INSERT INTO gaps VALUES (?, ?, ?)", row)
        note_sign(connection, timeline.sign())
    connection.execute("COMMIT")
    return timeline


def secret_of(connection: sqlite3.Connection) -> bytes:
    """The journal's secret, made by whoever asks first."""
    query = "SELECT secret FROM secrets WHERE id = 1"
    if (found := connection.execute(query).fetchone()) is None:
        insert_secret(connection, secrets.token_bytes(SECRET_BYTES))
        found = connection.execute(query).fetchone()
    return bytes(found[0])


def insert_secret(connection: sqlite3.Connection, secret: bytes) -> None:
    """Have ``secret``, unless there is one."""
    connection.execute("INSERT OR IGNORE INTO secrets VALUES (1, ?, ?)", (SIGNING, secret))


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    found = connection.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?", (name,))
    return bool(found.fetchone()[0])


def note_sign(connection: sqlite3.Connection, sign: Sign) -> None:
    """Record a sign of life, unless a later one is there."""
    connection.execute(
        "INSERT INTO clock VALUES (1, ?, ?, ?) ON CONFLICT (id) DO UPDATE"
        " SET boot = excluded.boot, steady = excluded.steady, time = excluded.time WHERE excluded.time > clock.time",
        (sign.boot, sign.steady, sign.time),
    )


def forget_gaps(connection: sqlite3.Connection, ended_before: float) -> None:
    """Remove the gaps that no record has seen."""
    connection.execute(
        "DELETE FROM gaps WHERE ended_at < min(?, ifnull((SELECT min(accepted_at) FROM rollouts), ?))",
        (ended_before, ended_before),
    )


def probe(connection: sqlite3.Connection) -> None:
    """Read a little of everything. Raises ``sqlite3.Error``."""
    connection.execute("SELECT * FROM records ORDER BY id DESC LIMIT 1").fetchone()
    connection.execute(
        "SELECT id FROM rollouts WHERE settled_at IS NULL ORDER BY owner, accepted_at LIMIT 1"
    ).fetchone()


def accept(
    connection: sqlite3.Connection,
    acceptance: Acceptance,
    owner: str,
    now: float,
    cutoffs: Callable[[], Mapping[RolloutState, float]],
) -> JournalRecord | None:
    if _insert(connection, acceptance, owner, now):
        return None
    replaced = sum(
        connection.execute(
            "DELETE FROM rollouts WHERE key = ? AND state = ? AND settled_at < ?", (acceptance.key, state, before)
        ).rowcount
        for state, before in cutoffs().items()
    )
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


def insert_records(
    connection: sqlite3.Connection,
    records: Iterable[tuple[JournalRecord, Mapping[Payload, bytes]]],
    owner: str,
    secret: bytes | None,
) -> None:
    """Records of another journal with their payloads, all of them now ``owner``'s, and its secret if it is known."""
    for statement in _LATER_SCHEMA:
        connection.execute(statement)
    if secret is not None:
        insert_secret(connection, secret)
    for record, payloads in records:
        values = asdict(record) | {"owner": owner}
        del values["payload_bytes"]
        without_messages = values.pop("without_messages")
        del values["polled_at"]  # of no use to a rollout that nobody runs
        values |= {"init_reply": payloads[Payload.INIT_REPLY], "request": payloads.get(Payload.REQUEST)}
        columns = ", ".join(values)
        row = connection.execute(
            f"INSERT INTO rollouts ({columns}) VALUES ({', '.join(':' + name for name in values)})",  # noqa: S608 - columns' names, of ours
            values,
        ).lastrowid
        if Payload.RESULT in payloads:
            connection.execute("INSERT INTO results (id, result) VALUES (?, ?)", (row, payloads[Payload.RESULT]))
        if without_messages:
            connection.execute("INSERT INTO refused_messages VALUES (?, ?)", (row, record.finished_at or 0.0))


def finish(connection: sqlite3.Connection, key: str, result: bytes, owner: str, now: float) -> bool:
    row, state = _moved(connection, key, Move.FINISH)
    if state is None:
        return _stands(connection, row, result, owner)
    # Without the request: nothing needs it now, and it is often most of the row.
    connection.execute(
        "UPDATE rollouts SET state = ?, owner = ?, finished_at = ?, request = NULL WHERE id = ?",
        (state, owner, now, row),
    )
    connection.execute("INSERT INTO results (id, result) VALUES (?, ?)", (row, result))
    return True


def _stands(connection: sqlite3.Connection, row: int, result: bytes, owner: str) -> bool:
    """Whether this very result is on record and this owner's: its caller was told of a failure after the commit."""
    query = "SELECT 1 FROM records WHERE id = ? AND state = ? AND owner = ? AND result = ?"
    return connection.execute(query, (row, RolloutState.FINISHED, owner, result)).fetchone() is not None


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


def note_poll(connection: sqlite3.Connection, key: str, now: float) -> None:
    connection.execute(
        "INSERT INTO polls SELECT id, ? FROM rollouts WHERE key = ?"
        " ON CONFLICT (id) DO UPDATE SET polled_at = max(polled_at, excluded.polled_at)",
        (now, key),
    )


def leave_out_messages(connection: sqlite3.Connection, key: str, now: float) -> bool:
    found = connection.execute("SELECT id, state, reopened_at FROM rollouts WHERE key = ?", (key,)).fetchone()
    if found is None:
        raise UnknownKeyError(key)
    row, state, reopened_at = found
    if state != RolloutState.FINISHED or reopened_at is not None:
        return False
    connection.execute("INSERT OR IGNORE INTO refused_messages VALUES (?, ?)", (row, now))
    return True


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
    return row, next_state(key, None if state is None else _STATES.get(state) or RolloutState(state), move)


def get(connection: sqlite3.Connection, key: str) -> JournalRecord | None:
    found = _select(connection, "WHERE key = ?", (key,))
    return found[0] if found else None


def load(connection: sqlite3.Connection, key: str, payload: Payload) -> bytes | None:
    found = connection.execute(f"SELECT {payload} FROM records WHERE key = ?", (key,)).fetchone()  # noqa: S608 - a column's name, of an enum
    return None if found is None else found[0]


def find(connection: sqlite3.Connection, rollout_id: str) -> list[JournalRecord]:
    return _select(connection, "WHERE rollout_id = ? ORDER BY id DESC", (rollout_id,))


def records(
    connection: sqlite3.Connection, states: Sequence[RolloutState], limit: int, offset: int
) -> list[JournalRecord]:
    return _select(
        connection,
        # The page is found before the results are joined: they would all be sorted otherwise.
        "WHERE id IN (SELECT id FROM rollouts WHERE state IN (SELECT value FROM json_each(?))"
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
            claimed += _select(connection, "WHERE id = ?", identity)
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


_RECORD = (
    "SELECT key, rollout_id, fingerprint, server_url, api_key, state, owner, accepted_at, finished_at, reopened_at,"
    " settled_at, delivery_attempts, last_error,"
    # Of a blob, SQLite reads the length without its content.
    " coalesce(length(result), length(request), 0) AS payload_bytes,"
    " EXISTS (SELECT 1 FROM refused_messages WHERE refused_messages.id = records.id) AS without_messages,"
    " (SELECT polled_at FROM polls WHERE polls.id = records.id) AS polled_at FROM records "
)


def _select(connection: sqlite3.Connection, where: str, arguments: Sequence[object]) -> list[JournalRecord]:
    found = connection.execute(_RECORD + where, arguments)
    names = [name for name, *_ in found.description]
    return [_record(dict(zip(names, row, strict=True))) for row in found]


def _record(values: dict[str, Any]) -> JournalRecord:
    typed = {"state": RolloutState(values["state"]), "without_messages": bool(values["without_messages"])}
    return JournalRecord(**values | typed)
