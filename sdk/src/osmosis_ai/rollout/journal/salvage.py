"""Getting out of a damaged journal what it owes, into a new one.

SQLite refuses a file whose structure is broken, so this reads rows wherever a page still holds them (``pages``),
whether or not anything leads to that page. The damaged files are only read.

Of a row that is found more than once, the one furthest on its way counts, so that an old copy of it cannot turn a
delivered rollout into one that is owed. A row whose large fields are lost is still a promise: without its result it is
reported as interrupted, without its messages if they are lost too. Settled rollouts are brought out as well: their keys
stay taken.

The rows are read twice, as their payloads may be larger than memory: first to see what there is, and where, then one by
one to write it.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from osmosis_ai.rollout.core.files import make_folder
from osmosis_ai.rollout.journal import schema, table
from osmosis_ai.rollout.journal.errors import JournalError, NoJournalError
from osmosis_ai.rollout.journal.explain import journal_error
from osmosis_ai.rollout.journal.file import create_file
from osmosis_ai.rollout.journal.occupancy import require_nobody
from osmosis_ai.rollout.journal.owner import new_token
from osmosis_ai.rollout.journal.pages import LOST, Pages, RowPlace
from osmosis_ai.rollout.journal.token import OF_A_START
from osmosis_ai.rollout.journal.types import UNSETTLED, JournalRecord, Payload, RolloutState

_PROGRESS = [RolloutState.ACCEPTED, RolloutState.FINISHED, RolloutState.UNDELIVERABLE, RolloutState.DELIVERED]
_COLUMNS = (
    *(
        "id",
        "key",
        "rollout_id",
        "fingerprint",
        "server_url",
        "api_key",
        "state",
        "owner",
        "accepted_at",
        "finished_at",
    ),
    *("reopened_at", "settled_at", "delivery_attempts", "last_error", "init_reply", "request"),
)
"""As `schema.SCHEMA` has them: it is by their number that a row is known."""
_RESULT_COLUMNS = 2
_REFUSED_MESSAGES_COLUMNS = 2
_SECRETS_COLUMNS = 3
_NECESSARY_TEXTS = ("key", "rollout_id", "fingerprint", "server_url", "owner")
_TIMES = ("finished_at", "reopened_at", "settled_at")


@dataclass(slots=True)
class Places:
    """Of one rollout's payloads."""

    row: RowPlace
    result: RowPlace | None = None


@dataclass(slots=True)
class Salvaged:
    """What was found, by key, and what of it is not as it was."""

    records: dict[str, JournalRecord] = field(default_factory=dict)
    places: dict[str, "Places"] = field(default_factory=dict, repr=False)
    """Where the payloads are."""
    lost_results: list[str] = field(default_factory=list)
    """Rollouts that were finished and whose result is lost, so that they are reported as interrupted."""
    lost_requests: list[str] = field(default_factory=list)
    """Rollouts that are reported as interrupted without the messages of their init."""
    strays: list[str] = field(default_factory=list)
    """Rollouts of which only the result is left: whose it is, is lost."""
    secret: bytes | None = field(default=None, repr=False)
    """The journal's; without it, leases of 0.3 have other tokens from now on."""
    unreadable_rows: int = 0
    unreadable_pages: int = 0
    """That the system could not read at all."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is known to be lost."""
        lost = (self.lost_results, self.lost_requests, self.strays, self.unreadable_rows, self.unreadable_pages)
        return not any(lost)

    def counts(self) -> dict[RolloutState, int]:
        """How many records there are in each state."""
        states = [record.state for record in self.records.values()]
        return {state: states.count(state) for state in RolloutState}


def salvage(damaged: Path, new: Path) -> Salvaged:
    """Read what can be read of ``damaged`` into a journal at ``new``, for a server to take up.

    Raises:
        JournalError: a server runs on ``damaged``, nothing of a journal is in it, ``new`` exists, or a file cannot
            be read or written.
    """
    if new.exists():
        raise JournalError(f"There is a file at {new} already: name a new one.")
    try:
        with Pages(damaged) as pages:
            found = read(pages)
            require_nobody(damaged)
            if not found.records:
                raise JournalError(f"Nothing of a rollout can be read in {damaged}: see that it is the right file.")
            try:
                _write(found, pages, new)
            except (OSError, sqlite3.Error) as error:
                raise journal_error(new, error) from error
    except FileNotFoundError:
        raise NoJournalError(f"There is no journal at {damaged}: name the damaged one.") from None
    except OSError as error:
        raise journal_error(damaged, error) from error
    return found


def read(pages: Pages) -> Salvaged:
    """See what there is in ``pages``."""
    found = Salvaged()
    rollouts: dict[str, dict[str, Any]] = {}
    results: dict[int, list[_Result]] = {}
    without_messages: set[int] = set()
    for row_id, values, place in pages.rows():
        if len(values) == len(_COLUMNS):
            row = dict(zip(_COLUMNS, values, strict=True)) | {"id": row_id, "place": place}
            if not _is_rollout(row):
                found.unreadable_rows += 1
            elif _progress(row) > _progress(rollouts.get(row["key"])):
                request = row.pop("request")
                row["request_bytes"] = len(request) if _has(request, "messages") else None
                del row["init_reply"]
                rollouts[row["key"]] = row
        elif len(values) == _RESULT_COLUMNS and isinstance(values[1], bytes):
            result = _Result(_rollout_id_of(values[1]), len(values[1]), place)
            results.setdefault(row_id, []).append(result)
        elif len(values) == _REFUSED_MESSAGES_COLUMNS and values[0] is None and isinstance(values[1], int | float):
            without_messages.add(row_id)
        elif len(values) == _SECRETS_COLUMNS and values[1] == schema.SIGNING and isinstance(values[2], bytes):
            found.secret = values[2]
    found.unreadable_rows += pages.unreadable_rows
    found.unreadable_pages = pages.unreadable_pages
    for row in sorted(rollouts.values(), key=lambda row: row["id"]):
        own = (each for each in results.pop(row["id"], ()) if each.rollout_id == row["rollout_id"])
        own_result = next(own, None)
        record = _record(row, own_result, row["id"] in without_messages)
        found.records[record.key] = record
        found.places[record.key] = Places(row["place"])
        if record.state is not RolloutState.ACCEPTED and own_result is not None:
            found.places[record.key].result = own_result.place
        if record.state is not row["state"]:
            found.lost_results.append(record.rollout_id)
        if record.state is RolloutState.ACCEPTED and row["request_bytes"] is None:
            found.lost_requests.append(record.rollout_id)
    strays = {each.rollout_id for left in results.values() for each in left}
    known = {record.rollout_id for record in found.records.values()}
    found.strays = sorted(each for each in strays if each is not None and each not in known)
    return found


def _is_rollout(row: dict[str, Any]) -> bool:
    if row["state"] not in _PROGRESS or not isinstance(row["accepted_at"], int | float):
        return False
    row["state"] = RolloutState(row["state"])
    return all(isinstance(row[name], str) for name in _NECESSARY_TEXTS) and row["key"] != ""


def _progress(row: dict[str, Any] | None) -> tuple[float, float, int]:
    """What decides between two copies: a key that was used again, a result that was delivered again, the state."""
    if row is None:
        return (float("-inf"), 0.0, 0)
    reopened_at = row["reopened_at"] if isinstance(row["reopened_at"], int | float) else 0.0
    return (row["accepted_at"], reopened_at, _PROGRESS.index(row["state"]))


class _Result(NamedTuple):
    """A row of the table of results."""

    rollout_id: str | None
    size_bytes: int
    place: RowPlace


def _record(row: dict[str, Any], result: _Result | None, without_messages: bool) -> JournalRecord:
    state = row["state"]
    if state is RolloutState.FINISHED and result is None:
        state = RolloutState.ACCEPTED
    times = {name: row[name] if isinstance(row[name], int | float) else None for name in _TIMES}
    if state in UNSETTLED:
        times["settled_at"] = None
    elif times["settled_at"] is None:
        times["settled_at"] = row["accepted_at"]
    if state is RolloutState.ACCEPTED:
        times = dict.fromkeys(_TIMES)
        size_bytes = row["request_bytes"]
    else:
        size_bytes = None if result is None else result.size_bytes
    return JournalRecord(
        key=row["key"],
        rollout_id=row["rollout_id"],
        fingerprint=row["fingerprint"],
        server_url=row["server_url"],
        api_key=row["api_key"] if isinstance(row["api_key"], str) else None,
        state=state,
        owner=row["owner"],
        accepted_at=row["accepted_at"],
        **times,
        delivery_attempts=row["delivery_attempts"] if isinstance(row["delivery_attempts"], int) else 0,
        last_error=row["last_error"] if isinstance(row["last_error"], str) else None,
        payload_bytes=size_bytes or 0,
        without_messages=without_messages and state is not RolloutState.ACCEPTED and result is not None,
    )


def _fields(content: object) -> dict[str, Any]:
    """The JSON object in ``content``; an empty one if it is damaged."""
    if content is LOST or not isinstance(content, bytes):
        return {}
    try:
        found = from_json(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _has(content: object, name: str) -> bool:
    return isinstance(_fields(content).get(name), list)


def _rollout_id_of(result: bytes) -> str | None:
    rollout_id = _fields(result).get("rollout_id")
    return rollout_id if isinstance(rollout_id, str) else None


def payloads_of(record: JournalRecord, places: Places, pages: Pages) -> dict[Payload, bytes]:
    """Read once more."""
    row = dict(zip(_COLUMNS, pages.values_at(places.row), strict=True))
    # A reply to an init has tools, one to a start of 0.3 how long its lease is.
    is_whole = _has(row["init_reply"], "tools") or OF_A_START in _fields(row["init_reply"])
    payloads = {
        Payload.INIT_REPLY: row["init_reply"] if is_whole else to_json({"rollout_id": record.rollout_id, "tools": []})
    }
    if record.state is RolloutState.ACCEPTED and record.payload_bytes:
        payloads[Payload.REQUEST] = row["request"]
    if places.result is not None:
        _, payloads[Payload.RESULT] = pages.values_at(places.result)
    return payloads


def _write(found: Salvaged, pages: Pages, new: Path) -> None:
    make_folder(new.parent)
    draft = new.with_name(new.name + ".part")
    draft.unlink(missing_ok=True)
    create_file(draft)
    with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        records = ((record, payloads_of(record, found.places[key], pages)) for key, record in found.records.items())
        table.insert_records(connection, records, owner=new_token(), secret=found.secret)
        connection.execute("COMMIT")
    draft.replace(new)
