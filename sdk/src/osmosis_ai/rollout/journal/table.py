"""The records in the tables of ``schema``, each function in a transaction that its caller began.

A function that raises ``JournalError`` has changed nothing.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from osmosis_ai.rollout.journal.errors import UnknownKeyError
from osmosis_ai.rollout.journal.schema import LATER_SCHEMA, insert_secret
from osmosis_ai.rollout.journal.types import (
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
_STATES = {state.value: state for state in RolloutState}
"""What ``RolloutState(value)`` gives, in a tenth of the time."""


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
    for statement in LATER_SCHEMA:
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
    found = select(connection, "WHERE key = ?", (key,))
    return found[0] if found else None


def load(connection: sqlite3.Connection, key: str, payload: Payload) -> bytes | None:
    found = connection.execute(f"SELECT {payload} FROM records WHERE key = ?", (key,)).fetchone()  # noqa: S608 - a column's name, of an enum
    return None if found is None else found[0]


def find(connection: sqlite3.Connection, rollout_id: str) -> list[JournalRecord]:
    return select(connection, "WHERE rollout_id = ? ORDER BY id DESC", (rollout_id,))


def records(
    connection: sqlite3.Connection, states: Sequence[RolloutState], limit: int, offset: int
) -> list[JournalRecord]:
    return select(
        connection,
        # The page is found before the results are joined: they would all be sorted otherwise.
        "WHERE id IN (SELECT id FROM rollouts WHERE state IN (SELECT value FROM json_each(?))"
        " ORDER BY id DESC LIMIT ? OFFSET ?) ORDER BY id DESC",
        (json.dumps(states), limit, offset),
    )


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


_RECORD = (
    "SELECT key, rollout_id, fingerprint, server_url, api_key, state, owner, accepted_at, finished_at, reopened_at,"
    " settled_at, delivery_attempts, last_error,"
    # Of a blob, SQLite reads the length without its content.
    " coalesce(length(result), length(request), 0) AS payload_bytes,"
    " EXISTS (SELECT 1 FROM refused_messages WHERE refused_messages.id = records.id) AS without_messages,"
    " (SELECT polled_at FROM polls WHERE polls.id = records.id) AS polled_at FROM records "
)


def select(connection: sqlite3.Connection, where: str, arguments: Sequence[object]) -> list[JournalRecord]:
    """The records that ``where`` picks, in its order."""
    found = connection.execute(_RECORD + where, arguments)
    names = [name for name, *_ in found.description]
    return [_record(dict(zip(names, row, strict=True))) for row in found]


def _record(values: dict[str, Any]) -> JournalRecord:
    typed = {"state": RolloutState(values["state"]), "without_messages": bool(values["without_messages"])}
    return JournalRecord(**values | typed)
