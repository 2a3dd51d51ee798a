# ruff: noqa: ASYNC240 - nothing else runs in the loop of a command
"""From a journal in a file to one in a database, losing nothing and promising nothing twice.

Order: what nobody works on becomes ours, so that no server takes it up; all records are copied, the oldest first, in
one transaction; only then the file gets another name. Whatever ends this before, the file is as it was, and the
database too; between the two, the next try finds all of it there.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from osmosis_ai.rollout.journal.errors import JournalError, NoJournalError
from osmosis_ai.rollout.journal.file import rename
from osmosis_ai.rollout.journal.occupancy import require_nobody
from osmosis_ai.rollout.journal.postgres.adoption import Adoption
from osmosis_ai.rollout.journal.postgres.journal import PostgresJournal
from osmosis_ai.rollout.journal.sqlite import BUSY_TIMEOUT_SECONDS, SqliteJournal
from osmosis_ai.rollout.journal.token import is_reply_to_start, token_of, with_token
from osmosis_ai.rollout.journal.types import UNSETTLED, JournalRecord, Payload, RolloutState

PAGE_ROWS = 100
PAGE_BYTES = 8 * 1024 * 1024
MOVED = ".moved"


@dataclass(frozen=True, slots=True)
class Moved:
    """What came of it."""

    counts: dict[RolloutState, int]
    """Of the records in the new journal that were in the old one."""
    already: int
    """Of them, those that an earlier try had brought."""
    kept_as: Path
    """Where the old file is now."""


async def move(file: Path, url: str) -> Moved:
    """Move the journal in ``file`` to the database at ``url``.

    Raises:
        JournalError: a server runs on the file, a key is taken there by another rollout, or one of them cannot be used.
            Then nothing has come into the database.
    """
    kept_as = file.with_name(file.name + MOVED)
    if not file.exists():
        raise NoJournalError(f"There is no journal at {file}: name the file that servers had as --journal.")
    if kept_as.exists():
        raise JournalError(f"There is a file at {kept_as} already, of an earlier move: put it elsewhere.")
    async with SqliteJournal(file, create=False) as old:
        await _take_all(old)  # before there is anything at the database
        counts = dict.fromkeys(RolloutState, 0)
        async with PostgresJournal(url) as new:
            added = await new.adopt(_pages(old, counts))
    rename(file, kept_as, BUSY_TIMEOUT_SECONDS)
    return Moved(counts, sum(counts.values()) - added, kept_as)


async def _pages(old: SqliteJournal, counts: dict[RolloutState, int]) -> AsyncGenerator[list[Adoption]]:
    """All of it, counted. Raises ``JournalError`` at the end if more has come meanwhile."""
    page: list[Adoption] = []
    size_bytes = 0
    async for record in _oldest_first(old):
        payloads = {it: content for it in Payload if (content := await old.load(record.key, it)) is not None}
        if is_reply_to_start(reply := payloads[Payload.INIT_REPLY]):
            # The new journal has a secret of its own, from which it does not follow.
            payloads[Payload.INIT_REPLY] = with_token(reply, token_of(old, record.key, record.fingerprint))
        page.append((record, payloads))
        size_bytes += sum(map(len, payloads.values()))
        counts[record.state] += 1
        if len(page) == PAGE_ROWS or size_bytes > PAGE_BYTES:
            yield page
            page, size_bytes = [], 0
    if page:
        yield page
    await _take_all(old)
    if counts != await old.counts():
        raise JournalError(f"A server has written to the journal {old.path} meanwhile: stop it, then try again.")


async def _take_all(old: SqliteJournal) -> None:
    require_nobody(old.path, but=old.owner)  # it may have no record of its own, and take an init at any time
    ours = {record.owner async for record in _unsettled_after_claiming(old)}
    if len(ours) > 1 or ours - {old.owner}:
        raise JournalError(f"A server runs on the journal {old.path}: stop it first, as it still delivers.")


async def _unsettled_after_claiming(old: SqliteJournal) -> AsyncIterator[JournalRecord]:
    while await old.claim_abandoned():
        pass
    offset = 0
    while page := await old.records(UNSETTLED, offset=offset):
        offset += len(page)
        for record in page:
            yield record


async def _oldest_first(old: SqliteJournal) -> AsyncIterator[JournalRecord]:
    end = sum((await old.counts()).values())
    while end > 0:
        offset = max(0, end - PAGE_ROWS)
        for record in reversed(await old.records(limit=end - offset, offset=offset)):
            yield record
        end = offset
