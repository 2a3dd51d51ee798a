"""``osmosis journal``: what was promised, what came of it, and what the operator can do about it.

Works on the file or the database, whether a server runs on it or not. Callback keys are never shown.
"""

import json
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from osmosis_ai.cli import options as table
from osmosis_ai.rollout.core.json_document import write_document
from osmosis_ai.rollout.core.text import counted, encodable, one_line, strip_control
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError
from osmosis_ai.rollout.journal.types import SETTLED, UNSETTLED, RolloutState

if TYPE_CHECKING:
    from osmosis_ai.rollout.journal import Journal, JournalRecord

HELP = "See what was promised to trainers and what came of it; deliver results again."
REDELIVERIES_AT_ONCE = 32
SHOWN_AT_ONCE = 20
MAX_SHOWN_ERROR_LENGTH = 60
MAX_NAMED = 10

T = TypeVar("T")

StateOption = Annotated[
    list[RolloutState] | None, typer.Option("--state", help="Rollouts in this state; may be repeated.")
]
RolloutsArgument = Annotated[list[str] | None, typer.Argument(metavar="ROLLOUT", help="Rollout ids, or keys.")]


def list_rollouts(
    journal: table.Journal = None,
    state: StateOption = None,
    limit: table.Limit = SHOWN_AT_ONCE,
    offset: table.Offset = 0,
    as_json: table.AsJson = False,
) -> int:
    """List rollouts, the newest first, and count them by state."""

    async def read(
        opened: "Journal",
    ) -> tuple[list[tuple["JournalRecord", str]], dict[RolloutState, int], float | None]:
        records = await opened.records(state or None, limit=limit or SHOWN_AT_ONCE, offset=offset)
        known = [(record, await _status(opened, record)) for record in records]
        return known, await opened.counts(), await opened.oldest_unsettled()

    records, counts, oldest = _with_journal(journal, read)
    if as_json:
        summaries = [{**_summary(record), "status": status or None} for record, status in records]
        listing = {"counts": counts, "oldest_unsettled_at": oldest, "results": summaries}
        _print_json(listing)
        return 0
    width = max([len("ROLLOUT"), *(len(one_line(record.rollout_id)) for record, _ in records)])
    if records:
        last = "LAST ERROR" if any(record.last_error for record, _ in records) else ""
        row = f"{'STATE':<13}  {'RESULT':<9}  {'ACCEPTED':<19}  {'ATTEMPTS':>8}  {'ROLLOUT':<{width}}  {last}"
        _print(row.rstrip())
    for record, status in records:
        error = one_line(record.last_error or "")[:MAX_SHOWN_ERROR_LENGTH]
        row = (
            f"{record.state:<13}  {status or '-':<9}  {_time(record.accepted_at)}  {record.delivery_attempts:>8}"
            f"  {one_line(record.rollout_id):<{width}}  {error}"
        )
        _print(row.rstrip())
    _print(", ".join(f"{count} {name}" for name, count in counts.items()))
    if oldest is not None:
        _print(f"The oldest that is not delivered was accepted at {_time(oldest)}.")
    return 0


def show(
    rollouts: Annotated[list[str], typer.Argument(metavar="ROLLOUT", help="Rollout ids, or keys.")],
    journal: table.Journal = None,
    as_json: table.AsJson = False,
) -> int:
    """Show all that is known of rollouts, with the result as it is delivered."""

    async def work(opened: "Journal") -> None:
        # One after the other: each may be large.
        for index, record in enumerate(await _named(opened, rollouts)):
            detail = await _details(opened, record)
            if as_json:
                write_document([",\n" if index else '{"results": [\n', json.dumps(detail, indent=2)])
            else:
                _print_details(detail, first=index == 0)
        if as_json:
            write_document(["\n]}\n"])

    _with_journal(journal, work)
    return 0


def redeliver(
    rollouts: RolloutsArgument = None,
    journal: table.Journal = None,
    state: StateOption = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, metavar="SECONDS", help="How long to try each result.")
    ] = 30.0,
    as_json: table.AsJson = False,
) -> int:
    """Deliver settled results again, the same bytes; exit code 1 if a trainer did not take one."""
    import asyncio

    from osmosis_ai.rollout.core.settings import RolloutClientSettings
    from osmosis_ai.rollout.server.redelivery import Redeliverer, Redelivery, settled_keys
    from osmosis_ai.rollout.server.terms import is_pulled

    names, states = _chosen(rollouts, state)
    if not SETTLED.issuperset(states):
        raise CLIError("Only delivered and undeliverable results can be delivered again: the others are under way.")
    settings = RolloutClientSettings()

    async def work(opened: "Journal") -> list[Redelivery]:
        for name in names:
            if not any(record.settled_at for record in await _named(opened, [name])):
                raise CLIError(f"The rollout {name!r} is not settled: its server delivers it, or the next one started.")
        settled = list(dict.fromkeys([key async for key in settled_keys(opened, names, states)]))
        keys = [key for key in settled if not is_pulled(key)]
        if fetched := len(settled) - len(keys):
            print(  # noqa: T201 - beside what may be one document
                f"{counted(fetched, 'result')} of 0.3 passed over, as trainers fetch those: GET /rollout/ID/result.",
                file=sys.stderr,
            )
        redeliverer = Redeliverer(opened, settings, timeout)
        gate = asyncio.Semaphore(REDELIVERIES_AT_ONCE)

        async def one(key: str) -> Redelivery | None:
            async with gate:
                return await redeliverer.redeliver(key)

        try:
            return [done for done in await asyncio.gather(*map(one, keys)) if done is not None]
        finally:
            await redeliverer.close()

    done = _with_journal(journal, work)
    failed = [each for each in done if each.error is not None]
    if as_json:
        results = [{"rollout_id": each.rollout_id, "key": each.key, "error": each.error} for each in done]
        _print_json({"delivered": len(done) - len(failed), "failed": len(failed), "results": results})
    else:
        for each in failed:
            _print(f"{one_line(each.rollout_id)}: {one_line(each.error or '')}")
        _print(f"{len(done) - len(failed)} delivered, {len(failed)} not taken")
    return 1 if failed else 0


def purge(
    rollouts: RolloutsArgument = None,
    journal: table.Journal = None,
    state: StateOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also rollouts whose trainers have no result yet: the promise is broken.")
    ] = False,
    as_json: table.AsJson = False,
) -> int:
    """Remove rollouts for good; those that a running server works on stay."""
    names, states = _chosen(rollouts, state)
    if not force and not SETTLED.issuperset(states):
        raise CLIError("Rollouts in that state are still owed to their trainers: use --force to break the promise.")

    async def work(opened: "Journal") -> int:
        found = await _named(opened, names)
        if not force and (owed := [record for record in found if record.state in UNSETTLED]):
            raise CLIError(
                f"The rollout {owed[0].rollout_id!r} is still owed to its trainer: use --force to break the promise."
            )
        return await opened.purge(keys=[record.key for record in found], states=states)

    removed = _with_journal(journal, work)
    if as_json:
        _print_json({"removed": removed})
    else:
        _print(f"{removed} removed")
    return 0


def _path(value: str) -> str:
    """Of a file; what is meant as the URL of a database may have a password. Raises ``UsageError``."""
    from osmosis_ai.rollout.journal.postgres.address import is_postgres

    if is_postgres(value):
        raise UsageError("FILE is the path of a journal in a file, and this is the URL of a database: name a file.")
    return value


def salvage(
    file: Annotated[str, typer.Argument(metavar="FILE", callback=_path, help="The damaged journal; it is only read.")],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="FILE", callback=_path, help="The new journal, on which to start the server."
        ),
    ],
    as_json: table.AsJson = False,
) -> int:
    """Bring out of a damaged journal what can be read of it, what is owed above all; exit code 1 if a part is lost."""
    from dataclasses import asdict
    from pathlib import Path

    from osmosis_ai.rollout.journal.salvage import salvage

    found = salvage(Path(file), Path(output))
    counts, is_whole = found.counts(), found.is_whole
    if as_json:
        lost = {name: value for name, value in asdict(found).items() if name not in ("records", "places", "secret")}
        _print_json({"counts": counts, **lost})
        return 0 if is_whole else 1
    _print(f"In {one_line(output)}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    _print("Owed are those accepted, which are reported as interrupted, and those finished, which are delivered.")
    for rollout_ids, what in (
        (found.lost_results, "had a result that cannot be read, and are reported as interrupted"),
        (found.lost_requests, "are reported without their messages, which cannot be read"),
        (found.strays, "have left a result, but not whose it is: their trainers get nothing"),
    ):
        if rollout_ids:
            names = ", ".join(map(one_line, rollout_ids[:MAX_NAMED]))
            _print(f"{len(rollout_ids)} {what}: {names}{', ...' if len(rollout_ids) > MAX_NAMED else ''}")
    if not is_whole:
        _print(
            f"{counted(found.unreadable_rows, 'row')} and {counted(found.unreadable_pages, 'page')} cannot be read."
            " A page overwritten as a whole leaves no trace: rollouts may be missing that nobody can name."
        )
    return 0 if is_whole else 1


def move(
    file: Annotated[
        str, typer.Argument(metavar="FILE", callback=_path, help="The journal to be moved; no server may run on it.")
    ],
    journal: table.Journal = None,
    as_json: table.AsJson = False,
) -> int:
    """Move a journal from a file into a database (--journal), with all that is owed; the file is kept as FILE.moved."""
    import asyncio
    from pathlib import Path

    from osmosis_ai.rollout.journal.move import move
    from osmosis_ai.rollout.journal.place import shown
    from osmosis_ai.rollout.journal.postgres.address import is_postgres

    url = journal or os.environ.get(table.JOURNAL_VARIABLE) or ""
    if not is_postgres(url):
        raise UsageError(
            "There is nowhere to move to: name a database, postgresql://..., with --journal or"
            f" {table.JOURNAL_VARIABLE}."
        )
    moved = asyncio.run(move(Path(file), url))
    if as_json:
        _print_json({"counts": moved.counts, "already_there": moved.already, "kept_as": str(moved.kept_as)})
        return 0
    _print(f"At {shown(url)}: " + ", ".join(f"{count} {state}" for state, count in moved.counts.items()))
    if moved.already:
        _print(f"{moved.already} of them were there already.")
    _print(f"The file is kept as {one_line(str(moved.kept_as))}; start servers with the new journal.")
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "list": list_rollouts,
    "show": show,
    "redeliver": redeliver,
    "purge": purge,
    "salvage": salvage,
    "move": move,
}


def _with_journal(path: str | None, work: "Callable[[Journal], Awaitable[T]]") -> T:
    import asyncio

    from osmosis_ai.rollout.core.settings import DEFAULT_JOURNAL
    from osmosis_ai.rollout.journal.place import journal_at

    path = path or os.environ.get(table.JOURNAL_VARIABLE) or DEFAULT_JOURNAL
    if path == "off":
        raise UsageError(f"{table.JOURNAL_VARIABLE} switches the journal off: name a file with --journal.")

    async def run() -> T:
        async with journal_at(path, create=False) as opened:
            return await work(opened)

    return asyncio.run(run())


async def _named(opened: "Journal", names: list[str]) -> list["JournalRecord"]:
    from osmosis_ai.rollout.server.redelivery import records_named

    records = []
    for name in names:
        if not (found := await records_named(opened, name)):
            raise CLIError(f"The journal knows no rollout {name!r}: see 'osmosis journal list'.")
        records += found
    return records


def _chosen(rollouts: list[str] | None, states: list[RolloutState] | None) -> tuple[list[str], list[RolloutState]]:
    if not rollouts and not states:
        raise UsageError("Nothing is chosen: name rollouts, or a --state.")
    return rollouts or [], states or []


def _summary(record: "JournalRecord") -> dict[str, Any]:
    """What a list tells; without the callback key, which nothing here may show."""
    return {
        "rollout_id": record.rollout_id,
        "key": record.key,
        "state": record.state.value,
        "trainer": record.server_url,
        "accepted_at": record.accepted_at,
        "finished_at": record.finished_at,
        "settled_at": record.settled_at,
        "delivery_attempts": record.delivery_attempts,
        "last_error": record.last_error,
    }


async def _status(opened: "Journal", record: "JournalRecord") -> str:
    """COMPLETED or ERROR, as the result says; empty while there is none, or where the journal has let it go."""
    from osmosis_ai.rollout.journal import Payload

    content = None if record.finished_at is None else await opened.load(record.key, Payload.RESULT)
    return "" if content is None else one_line(str(json.loads(content).get("status", "")))


async def _details(opened: "Journal", record: "JournalRecord") -> dict[str, Any]:
    from osmosis_ai.rollout.journal import Payload

    details = {**_summary(record), "without_messages": record.without_messages}
    for payload in (Payload.REQUEST, Payload.RESULT):
        content = await opened.load(record.key, payload)
        details[payload.value] = None if content is None else json.loads(content)
    return details


def _print_details(details: dict[str, Any], *, first: bool) -> None:
    if not first:
        _print("")
    for name, value in details.items():
        if name.endswith("_at") and value is not None:
            value = _time(value)
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
        _print(f"{name + ':':<18} {strip_control(shown)}")


def _time(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _print(line: str) -> None:
    sys.stdout.write(encodable(line, sys.stdout.encoding or "utf-8") + "\n")


def _print_json(value: Any) -> None:
    write_document([json.dumps(value, indent=2), "\n"])
