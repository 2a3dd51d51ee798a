"""From where a journal is said to be, a path or the URL of a database, to the journal."""

from osmosis_ai.rollout.core.settings import Synchronous
from osmosis_ai.rollout.journal.base import Journal
from osmosis_ai.rollout.journal.postgres.address import is_postgres, parse
from osmosis_ai.rollout.journal.retention import Retention


def journal_at(
    where: str,
    *,
    create: bool = True,
    retention: Retention | None = None,
    synchronous: Synchronous = Synchronous.NORMAL,
    busy_timeout_seconds: float | None = None,
) -> Journal:
    """The journal at ``where``, not open yet. ``synchronous`` and ``busy_timeout_seconds`` are for a file.

    Raises ``JournalError`` for a URL that cannot be read.
    """
    # Here, as each brings weight that the other does not need.
    if is_postgres(where):
        from osmosis_ai.rollout.journal.postgres.journal import PostgresJournal

        return PostgresJournal(where, create=create, retention=retention)
    from osmosis_ai.rollout.journal.sqlite import BUSY_TIMEOUT_SECONDS, SqliteJournal

    patience = BUSY_TIMEOUT_SECONDS if busy_timeout_seconds is None else busy_timeout_seconds
    return SqliteJournal(
        where, create=create, retention=retention, synchronous=synchronous, busy_timeout_seconds=patience
    )


def secret_of(where: str) -> str | None:
    """The password in ``where``, if it has one, which then is to be hidden wherever it is met."""
    return parse(where).password if is_postgres(where) else None


def shown(where: str) -> str:
    """``where`` as it may be shown: without user and password."""
    return parse(where).shown if is_postgres(where) else where
