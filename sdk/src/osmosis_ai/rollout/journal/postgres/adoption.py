"""Records of another journal, taken in: all of them, or none, and each once, however often it is tried."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from osmosis_ai.rollout.journal.errors import JournalError
from osmosis_ai.rollout.journal.postgres import statements
from osmosis_ai.rollout.journal.postgres.lease import Lease
from osmosis_ai.rollout.journal.types import JournalRecord, Payload

PAGE_SECONDS = 300.0
"""For a page of them."""

Adoption = tuple[JournalRecord, Mapping[Payload, bytes]]
Pages = AsyncGenerator[Sequence[Adoption]]


async def adopt(connection: Any, lease: Lease, pages: Pages) -> int:
    """Make all of ``pages`` records of the lease's owner, in one transaction; how many were not there already.

    Raises ``JournalError`` for a key that another rollout has here, and whatever ``pages`` raises.
    """
    added = 0
    async with aclosing(pages), connection.transaction():
        async for page in pages:
            async with asyncio.timeout(PAGE_SECONDS):
                added += await _adopt(connection, lease, page)
    return added


async def _adopt(connection: Any, lease: Lease, page: Sequence[Adoption]) -> int:
    rows = [statements.adopt_row(*each, place) for place, each in enumerate(page)]
    columns = [list(column) for column in zip(*rows, strict=True)]
    row = await connection.fetchrow(statements.ADOPT, lease.epoch, *columns)
    if not row["live"]:
        await lease.require_live(connection)
    added = set(row["ids"])
    mine = {record.key: record for record, _ in page}
    for found in await connection.fetch(statements.GET, [row[0] for row in rows if row[0] not in added]):
        there = statements.record_of(found)
        record = mine[there.key]
        if (there.fingerprint, there.accepted_at) != (record.fingerprint, record.accepted_at):
            raise JournalError(
                f"The key {there.key!r} is taken by another rollout in the journal at {lease.address}: move to another"
                " schema."
            )
    return len(added)
