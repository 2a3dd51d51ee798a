# ruff: noqa: S608 - nothing but names of this module goes into a statement
"""What is asked of the database, a statement each, and what comes back as a record.

Every statement that writes, but for an operator's purge, begins with ``_FENCE``: it finds the owner's row only while
its lease lives by the database's clock, and holds it, so that nobody can take that owner over before the statement has
ended. What is written takes the epoch from there; without a row there, nothing is written. A statement for many records
takes arrays, one of each column, and is one transaction.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from osmosis_ai.rollout.journal.types import Acceptance, JournalRecord, Move, Payload, RolloutState, leads_to, starts_of

PAGE_ROWS = 500

_FENCE = "fence AS (SELECT epoch FROM owners WHERE epoch = $1 AND lease_until > clock_timestamp() FOR KEY SHARE)"
_DONE = "SELECT EXISTS (SELECT FROM fence) AS live, coalesce((SELECT array_agg(id) FROM done), '{}') AS ids"

_ACCEPT_COLUMNS = {
    "id": "bytea",
    "key": "text",
    "rollout_id": "text",
    "fingerprint": "text",
    "server_url": "text",
    "api_key": "text",
    "init_reply": "bytea",
    "request": "bytea",
    "accepted_at": "float8",
}
_RESET = [
    "finished_at",
    "reopened_at",
    "settled_at",
    "polled_at",
    "delivery_attempts",
    "without_messages",
    "cancel_asked",
    "repeated",
    "claim",
    "last_error",
    "result",
]


def _given(columns: Mapping[str, str], first: int) -> str:
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(columns.values(), first))
    return f"given AS (SELECT * FROM unnest({arrays}) AS given({', '.join(columns)}))"


# By id, so that two replicas that are given the same keys at once wait for each other in one order.
ACCEPT = f"""
WITH {_FENCE}, {_given(_ACCEPT_COLUMNS, 4)}, done AS (
    INSERT INTO rollouts AS old ({", ".join(_ACCEPT_COLUMNS)}, epoch, state)
    SELECT {", ".join("given." + name for name in _ACCEPT_COLUMNS)}, fence.epoch, '{RolloutState.ACCEPTED}'
    FROM given, fence ORDER BY given.id
    ON CONFLICT (id) DO UPDATE SET
        {", ".join(f"{name} = excluded.{name}" for name in (*list(_ACCEPT_COLUMNS)[1:], "epoch", "state", "number"))},
        {", ".join(f"{name} = DEFAULT" for name in _RESET)}
    WHERE (old.state = '{RolloutState.DELIVERED}' AND old.settled_at < $2)
        OR (old.state = '{RolloutState.UNDELIVERABLE}' AND old.settled_at < $3)
    RETURNING id
) {_DONE}
"""
FINISH = f"""
WITH {_FENCE}, {_given({"id": "bytea", "result": "bytea", "finished_at": "float8"}, 2)}, done AS (
    UPDATE rollouts SET state = '{leads_to(Move.FINISH)}', finished_at = given.finished_at, request = NULL,
        result = given.result
    FROM given, fence
    WHERE rollouts.id = given.id AND rollouts.epoch = fence.epoch
        AND rollouts.state = ANY('{{{starts_of(Move.FINISH)}}}')
    RETURNING rollouts.id
) {_DONE}
"""


def _settle(move: Move, whose: str) -> str:
    columns = {"id": "bytea", "attempts": "bigint", "error": "text", "settled_at": "float8"}
    return f"""
    WITH {_FENCE}, {_given(columns, 2)}, done AS (
        UPDATE rollouts SET state = '{leads_to(move)}', settled_at = given.settled_at,
            delivery_attempts = given.attempts, last_error = given.error
        FROM given, fence
        WHERE rollouts.id = given.id AND {whose} AND rollouts.state = ANY('{{{starts_of(move)}}}')
        RETURNING rollouts.id
    ) {_DONE}
    """


# An acknowledgement is a fact, whoever heard it; that it is tried no more, its owner alone decides.
ACKNOWLEDGE = _settle(Move.ACKNOWLEDGE, "true")
GIVE_UP = _settle(Move.GIVE_UP, "rollouts.epoch = fence.epoch")
NOTE_POLL = f"""
WITH {_FENCE}, {_given({"id": "bytea", "polled_at": "float8"}, 2)}, done AS (
    UPDATE rollouts SET polled_at = greatest(rollouts.polled_at, given.polled_at)
    FROM given, fence WHERE rollouts.id = given.id RETURNING rollouts.id
) {_DONE}
"""
NOTE_ATTEMPT = f"""
WITH {_FENCE}, {_given({"id": "bytea", "attempts": "bigint", "error": "text"}, 2)}, done AS (
    UPDATE rollouts SET delivery_attempts = given.attempts, last_error = given.error
    FROM given, fence
    WHERE rollouts.id = given.id AND rollouts.epoch = fence.epoch AND rollouts.state = '{RolloutState.FINISHED}'
    RETURNING rollouts.id
) {_DONE}
"""

_ADOPT_COLUMNS = {
    **{name: kind for name, kind in _ACCEPT_COLUMNS.items() if name != "accepted_at"},
    "result": "bytea",
    "state": "text",
    "accepted_at": "float8",
    "finished_at": "float8",
    "reopened_at": "float8",
    "settled_at": "float8",
    "delivery_attempts": "bigint",
    "last_error": "text",
    "without_messages": "bool",
}
ADOPT = f"""
WITH {_FENCE}, {_given(_ADOPT_COLUMNS | {"place": "bigint"}, 2)}, done AS (
    INSERT INTO rollouts ({", ".join(_ADOPT_COLUMNS)}, epoch)
    SELECT {", ".join("given." + name for name in _ADOPT_COLUMNS)}, fence.epoch FROM given, fence ORDER BY given.place
    ON CONFLICT (id) DO NOTHING RETURNING id
) {_DONE}
"""
_COLUMNS = (
    "key, rollout_id, fingerprint, server_url, api_key, state, epoch, accepted_at, finished_at, reopened_at,"
    " settled_at, polled_at, delivery_attempts, last_error, without_messages,"
    " coalesce(octet_length(result), octet_length(request), 0) AS payload_bytes"
)
LEAVE_OUT_MESSAGES = f"""
WITH {_FENCE} UPDATE rollouts SET without_messages = true FROM fence
WHERE id = $2 AND rollouts.epoch = fence.epoch AND state = '{RolloutState.FINISHED}' AND reopened_at IS NULL
RETURNING true
"""
REOPEN = f"""
WITH {_FENCE} UPDATE rollouts SET state = '{leads_to(Move.REOPEN)}', epoch = fence.epoch, reopened_at = $3,
    settled_at = NULL, delivery_attempts = 0, last_error = NULL
FROM fence WHERE id = $2 AND state = ANY('{{{starts_of(Move.REOPEN)}}}')
RETURNING {_COLUMNS.replace("epoch", "rollouts.epoch")}
"""

IS_LIVE = "SELECT EXISTS (SELECT FROM owners WHERE epoch = $1 AND lease_until > clock_timestamp())"
GET = f"SELECT id, {_COLUMNS} FROM rollouts WHERE id = ANY($1::bytea[])"
SAME_RESULT = "SELECT result = $2 FROM rollouts WHERE id = $1"
FIND = (
    f"SELECT {_COLUMNS} FROM rollouts"
    " WHERE hashtextextended(rollout_id, 0) = hashtextextended($1, 0) AND rollout_id = $1 ORDER BY number DESC"
)
RECORDS = f"SELECT {_COLUMNS} FROM rollouts WHERE state = ANY($1::text[]) ORDER BY number DESC LIMIT $2 OFFSET $3"
COUNTS = "SELECT state, count(*) FROM rollouts GROUP BY state"
OLDEST_UNSETTLED = "SELECT min(accepted_at) FROM rollouts WHERE settled_at IS NULL"

# Owners are few and may have many records each, so their epochs are found by stepping from one to the next.
_GONE = """
owing(epoch) AS (
    (SELECT epoch FROM rollouts WHERE settled_at IS NULL ORDER BY epoch LIMIT 1)
    UNION ALL
    SELECT (SELECT r.epoch FROM rollouts r WHERE r.settled_at IS NULL AND r.epoch > owing.epoch
            ORDER BY r.epoch LIMIT 1)
    FROM owing WHERE owing.epoch IS NOT NULL
),
gone AS (
    SELECT epoch FROM owing WHERE epoch IS NOT NULL
        AND NOT EXISTS (SELECT FROM owners WHERE owners.epoch = owing.epoch AND lease_until > '-infinity')
)
"""
CLAIM = f"""
WITH RECURSIVE {_FENCE}, {_GONE}, picked AS (
    SELECT id FROM rollouts WHERE settled_at IS NULL AND epoch IN (SELECT epoch FROM gone)
    ORDER BY accepted_at, number LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE rollouts SET epoch = fence.epoch, claim = $3 FROM picked, fence WHERE rollouts.id = picked.id
RETURNING {_COLUMNS.replace("epoch", "rollouts.epoch")}, number
"""
CLAIMED = f"SELECT {_COLUMNS}, number FROM rollouts WHERE epoch = $1 AND settled_at IS NULL AND claim = ANY($2)"
# Somebody else was promised a record that was found: then its owner may no longer take it back. What is found by the
# very acceptance that made it, sent again, nobody else was promised.
NOTE_REPEATED = f"""
WITH {_FENCE}, {_given({"id": "bytea", "accepted_at": "float8"}, 2)}
UPDATE rollouts SET repeated = true FROM given, fence
WHERE rollouts.id = given.id AND NOT repeated
    AND (rollouts.epoch, rollouts.accepted_at) <> (fence.epoch, given.accepted_at)
"""
TAKE_BACK = f"""
DELETE FROM rollouts
WHERE id = $2 AND epoch = $1 AND state = '{RolloutState.ACCEPTED}' AND accepted_at = $3 AND NOT repeated
"""
ABANDON = f"""
UPDATE rollouts SET epoch = 0
WHERE id = $2 AND epoch = $1 AND state = '{RolloutState.ACCEPTED}' AND accepted_at = $3
"""
PRUNE = f"""
WITH {_FENCE} DELETE FROM rollouts WHERE EXISTS (SELECT FROM fence) AND id IN (
    SELECT id FROM rollouts WHERE state = $2 AND settled_at < $3 ORDER BY settled_at LIMIT {PAGE_ROWS}
    FOR UPDATE SKIP LOCKED
)
"""
_PURGEABLE = "(settled_at IS NOT NULL OR epoch IN (SELECT epoch FROM gone))"
PURGE_KEYS = f"""
WITH RECURSIVE {_GONE} DELETE FROM rollouts WHERE id IN (
    SELECT id FROM rollouts WHERE id = ANY($1::bytea[]) AND {_PURGEABLE} FOR UPDATE SKIP LOCKED
)
"""
PURGE_STATE = f"""
WITH RECURSIVE {_GONE} DELETE FROM rollouts WHERE id IN (
    SELECT id FROM rollouts WHERE state = $1 AND {_PURGEABLE} LIMIT {PAGE_ROWS} FOR UPDATE SKIP LOCKED
)
"""
_MEANT = f"""
    settled_at IS NULL AND state = '{RolloutState.ACCEPTED}' AND epoch <> $1
    AND ($2 OR rollout_id = ANY($3::text[]) OR starts_with(rollout_id, $4))
    AND EXISTS (SELECT FROM unnest($6::text[]) AS space WHERE starts_with(key, space))
"""
# A row that somebody holds, to finish it or for any note of it, is passed over, as waiting for it could end in a
# deadlock: it comes back as not asked, and whoever asks has to ask again.
ASK_CANCEL = f"""
WITH meant AS (SELECT id, rollout_id, cancel_asked FROM rollouts WHERE {_MEANT}),
free AS (SELECT id FROM rollouts WHERE {_MEANT} AND NOT cancel_asked FOR UPDATE SKIP LOCKED),
asked AS (UPDATE rollouts SET cancel_asked = true FROM free WHERE rollouts.id = free.id RETURNING rollouts.id),
told AS (SELECT pg_notify($5, 'cancel') WHERE EXISTS (SELECT FROM asked))
SELECT meant.rollout_id, meant.cancel_asked OR asked.id IS NOT NULL AS is_asked
FROM meant LEFT JOIN asked USING (id) LEFT JOIN told ON true
"""
CANCELLED = f"""
SELECT key FROM rollouts WHERE epoch = $1 AND settled_at IS NULL AND state = '{RolloutState.ACCEPTED}' AND cancel_asked
"""

BACKLOG = f"""
SELECT count(*) AS amount, min(accepted_at) AS oldest FROM rollouts
WHERE settled_at IS NULL AND state = '{RolloutState.ACCEPTED}'
"""

REGISTER = (
    "INSERT INTO owners (epoch, name, lease_until) OVERRIDING SYSTEM VALUE"
    " VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))"
)
TOUCH = "UPDATE owners SET beats = beats WHERE epoch = $1"
"""A write that changes nothing."""
RENEW = (
    "UPDATE owners SET lease_until = clock_timestamp() + make_interval(secs => $2), beats = beats + 1"
    " WHERE epoch = $1 AND lease_until > '-infinity' RETURNING true"
)
OTHERS = (
    "SELECT epoch, beats,"
    " extract(epoch FROM lease_until)::float8 - extract(epoch FROM clock_timestamp())::float8 AS left"
    " FROM owners WHERE epoch <> $1"
)
"""``left``: how many seconds are of a lease; ``-inf`` for one that is gone."""
# Locked for update first: that waits for nobody, and nothing of that owner's can be under way. The others are told, as
# whoever hears of it last would find nothing left to do.
TAKE_OVER = """
WITH dead AS (
    SELECT epoch FROM owners WHERE epoch = $1 AND beats = $2 AND lease_until > '-infinity'
    FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE owners SET lease_until = '-infinity' FROM dead WHERE owners.epoch = dead.epoch RETURNING true
)
SELECT pg_notify($3, 'released') FROM taken
"""
RELEASE = "UPDATE owners SET lease_until = '-infinity' WHERE epoch = $1"
SWEEP = """
DELETE FROM owners WHERE lease_until = '-infinity'
    AND NOT EXISTS (SELECT FROM rollouts WHERE settled_at IS NULL AND rollouts.epoch = owners.epoch)
"""
NOTE_SIGN = (
    "INSERT INTO clock VALUES (1, $1, $2, $3) ON CONFLICT (id) DO UPDATE"
    " SET boot = excluded.boot, steady = excluded.steady, time = excluded.time WHERE excluded.time > clock.time"
)
FORGET_GAPS = "DELETE FROM gaps WHERE ended_at < least($1, (SELECT min(accepted_at) FROM rollouts))"


def id_of(key: str) -> bytes:
    """What stands for ``key`` in the index."""
    return hashlib.sha256(key.encode()).digest()


def stored(text: str | None) -> str | None:
    """``text`` as PostgreSQL can hold it, which has no NUL."""
    if text is None or ("\0" not in text and "\\" not in text):
        return text
    return text.replace("\\", "\\\\").replace("\0", "\\0")


def read(text: str | None) -> str | None:
    """What ``stored`` was given."""
    if text is None or "\\" not in text:
        return text
    return "\\".join(part.replace("\\0", "\0") for part in text.split("\\\\"))


def accept_row(acceptance: Acceptance, now: float) -> tuple[Any, ...]:
    """The values of ``ACCEPT`` for one."""
    return (
        id_of(acceptance.key),
        stored(acceptance.key),
        stored(acceptance.rollout_id),
        stored(acceptance.fingerprint),
        stored(acceptance.server_url),
        stored(acceptance.api_key),
        acceptance.init_reply,
        acceptance.request,
        now,
    )


def adopt_row(record: JournalRecord, payloads: Mapping[Payload, bytes], place: int) -> tuple[Any, ...]:
    """The values of ``ADOPT`` for one."""
    return (
        id_of(record.key),
        *(stored(getattr(record, name)) for name in ("key", "rollout_id", "fingerprint", "server_url", "api_key")),
        *(payloads.get(payload) for payload in (Payload.INIT_REPLY, Payload.REQUEST, Payload.RESULT)),
        record.state.value,
        *(record.accepted_at, record.finished_at, record.reopened_at, record.settled_at),
        *(record.delivery_attempts, stored(record.last_error), record.without_messages, place),
    )


_TEXTS = ("key", "rollout_id", "fingerprint", "server_url", "api_key", "last_error")
_OTHERS = (
    *("accepted_at", "finished_at", "reopened_at", "settled_at", "polled_at"),
    *("delivery_attempts", "payload_bytes", "without_messages"),
)


def record_of(row: Mapping[str, Any]) -> JournalRecord:
    """A row with ``_COLUMNS`` as a record."""
    values: dict[str, Any] = {name: read(row[name]) for name in _TEXTS}
    values |= {name: row[name] for name in _OTHERS}
    return JournalRecord(**values, state=RolloutState(row["state"]), owner=str(row["epoch"]))


def records_of(rows: Iterable[Mapping[str, Any]]) -> list[JournalRecord]:
    """Each row as a record."""
    return [record_of(row) for row in rows]


def in_order(rows: Sequence[Mapping[str, Any]]) -> list[JournalRecord]:
    """Those of a claim, the oldest first."""
    return records_of(sorted(rows, key=lambda row: (row["accepted_at"], row["number"])))
