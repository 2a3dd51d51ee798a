"""One connection, used by one at a time, made when it is needed and dropped when it breaks.

Invariant: after an error that leaves open what was done, the connection is gone, and the next one first ends what the
database still has of it: what was on its way through a partition is then done, or never will be. Times are bounded by
the user's own clock, as a partition tells nothing.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from osmosis_ai.rollout.journal.errors import JournalError
from osmosis_ai.rollout.journal.postgres.address import Address
from osmosis_ai.rollout.journal.postgres.explain import is_definite
from osmosis_ai.rollout.journal.postgres.libpq import Access, access

CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 1.0
END_POLL_SECONDS = 0.02
_END_PREDECESSORS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE application_name = current_setting('application_name') AND pid <> pg_backend_pid()"
)
STATEMENT_TIMEOUT = "30s"
"""The server's own bound, for a statement whose client is gone."""


class Link:
    """A connection to ``address`` for ``purpose``, which the database's list of sessions shows."""

    def __init__(self, address: Address, purpose: str) -> None:
        self._address = address
        self._name = f"osmosis {purpose} {secrets.token_hex(8)}"
        self._is_first = True
        self._turn = asyncio.Lock()
        self._connection: Any = None
        self.on_connected: Callable[[Any], Any] | None = None
        """Awaited with each new connection."""

    @asynccontextmanager
    async def held(self, seconds: float) -> AsyncIterator[Any]:
        """The connection, for at most ``seconds``, the wait for it included.

        Raises what asyncpg raises, and ``TimeoutError``; who waited in vain has left it to whoever has it.
        """
        async with asyncio.timeout(seconds), self._turn:
            try:
                yield await self._connected()
            except BaseException as error:
                if not isinstance(error, JournalError) and not is_definite(error):
                    self.drop()
                raise

    @property
    def is_up(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._connection is not None and not self._connection.is_closed()

    def drop(self) -> None:
        """Let the connection go at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Say goodbye to the database, briefly."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                await connection.close(timeout=CLOSE_SECONDS)

    async def _connected(self) -> Any:
        if not self.is_up:
            self._connection = None
            connection = await connect(self._address, self._name)
            try:
                while not self._is_first and await connection.fetchval(_END_PREDECESSORS):  # noqa: ASYNC110 - the database tells by answers alone
                    await asyncio.sleep(END_POLL_SECONDS)
            except BaseException:
                connection.terminate()
                raise
            self._connection, self._is_first = connection, False
            if self.on_connected is not None:
                await self.on_connected(self._connection)
        return self._connection


async def connect(address: Address, name: str) -> Any:
    """A new connection, which the database's list of sessions calls ``name``.

    Raises ``JournalError`` where nothing but the installation or the URL is wrong, else what asyncpg raises.
    """
    try:
        import asyncpg
    except ImportError:
        raise JournalError(
            "A journal in PostgreSQL needs the package asyncpg: install 'osmosis-ai[postgres]'."
        ) from None
    found: Access | None = None
    try:
        found = access(address.dsn)
        return await asyncpg.connect(
            found.dsn,
            **found.arguments,
            timeout=CONNECT_SECONDS,
            server_settings={
                "application_name": name,
                "search_path": address.schema,
                # A role or a database may have these otherwise, for statements that are not written for it.
                "default_transaction_isolation": "read committed",
                "lock_timeout": "0",
                "statement_timeout": STATEMENT_TIMEOUT,
                "idle_in_transaction_session_timeout": STATEMENT_TIMEOUT,
            },
        )
    except (asyncpg.UndefinedObjectError, asyncpg.InvalidParameterValueError) as error:
        raise JournalError(
            f"The database of the journal at {address} does not take a parameter of the URL, or of its service"
            f" ({type(error).__name__}): leave it out, or correct it."
        ) from None
    except asyncpg.TargetServerAttributeNotMatched:
        raise JournalError(
            f"No host of the journal at {address} is what target_session_attrs asks for: correct it, or name the one."
        ) from None
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        if found is not None and found.unreadable_file is not None:
            raise JournalError(
                f"The file that {found.unreadable_file} names for the journal at {address} is absent, or cannot be"
                " read: correct its path."
            ) from None
        raise
    except asyncpg.InvalidAuthorizationSpecificationError:
        if found is not None and found.lacking is not None:
            raise JournalError(
                f"The journal at {address} refuses this user without a password, and {found.lacking}: correct that, or"
                " the user's name."
            ) from None
        raise
    except (asyncpg.InterfaceError, ValueError, OverflowError) as error:
        if getattr(error, "sqlstate", None) is None and not isinstance(error, OSError):
            # Its messages quote the URL, so they are not passed on.
            raise JournalError(
                f"The URL of the journal at {address}, its service or a variable PG... says what asyncpg cannot take:"
                " see docs/many-machines.md."
            ) from None
        raise
