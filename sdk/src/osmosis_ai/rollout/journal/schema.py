"""The tables of a journal's file, and what is in it beside the records: its time, its secret.

``rollouts`` has a small row for each record, so that states change cheaply; ``results`` has the payloads, a row for
each record with one; the view ``records`` joins them. A record is unsettled exactly if ``settled_at`` is null.
``refused_messages`` has a row for each record whose result goes out without its messages, ``polls`` for each whose
result somebody asked for elsewhere than where it runs. ``clock`` and ``gaps`` are the journal's time (see ``clock``).
``secrets`` has one row. An SDK that does not know these five leaves them alone.
"""

import secrets
import sqlite3

from osmosis_ai.rollout.journal.base import SECRET_BYTES
from osmosis_ai.rollout.journal.clock import Clock, Gap, Sign, Timeline

SIGNING = "signing"
"""The name of the one secret (``Journal.sign``), by which its row is known when a damaged file is read."""
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
LATER_SCHEMA = (
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
    for statement in (*LATER_SCHEMA, *(_TIME_SCHEMA if serves else ())):
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
