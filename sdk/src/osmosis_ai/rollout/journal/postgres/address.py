"""Where a journal in PostgreSQL is: the URL as it was given, and what of it may be shown.

Invariant: user and password are in ``dsn`` alone, which is in no ``repr`` and no sentence.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from osmosis_ai.rollout.journal.errors import JournalError

SCHEMES = ("postgresql", "postgres")
DEFAULT_SCHEMA = "osmosis"
LEASE_SECONDS = 15.0
LEASE_BOUNDS_SECONDS = (1.0, 3600.0)
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Address:
    """Of a database, and of the schema in it."""

    dsn: str = field(repr=False)
    """As asyncpg takes it."""
    schema: str
    shown: str
    """Host and database: what a sentence may say."""
    lease_seconds: float
    """How long an owner lives after its last renewal."""
    password: str | None = field(repr=False)
    """If the URL has one, which then is to be hidden wherever it is met."""

    def __str__(self) -> str:
        return self.shown


def is_postgres(where: object) -> bool:
    """Whether a journal's place is the URL of a database."""
    return isinstance(where, str) and where.partition("://")[0] in SCHEMES and "://" in where


def parse(url: str) -> Address:
    """``postgresql://[user[:password]@][host][:port][/database][?schema=osmosis&lease=15&...]``.

    The parameters ``schema`` and ``lease`` are ours, the others are those of libpq, as asyncpg takes them.
    Raises ``JournalError``.
    """
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        raise JournalError(
            "The URL of the journal cannot be read: give it as postgresql://USER@HOST:PORT/DATABASE."
        ) from None
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema = query.pop("schema", DEFAULT_SCHEMA)
    if _SCHEMA.fullmatch(schema) is None:
        raise JournalError(
            f"The schema {schema!r} in the URL of the journal is no plain name: use small letters, digits and _."
        )
    lease_seconds = _seconds(query.pop("lease", str(LEASE_SECONDS)))
    place = parts.netloc.rpartition("@")[2] or query.get("host") or query.get("service") or "the default host"
    path = parts.path if len(parts.path) > 1 else ""  # one that names nothing would hide the database of a service
    shown = place + path
    if schema != DEFAULT_SCHEMA:
        shown += f" (schema {schema})"
    secret = query.get("password") or (unquote(password) if password else None)
    return Address(urlunsplit(parts._replace(path=path, query=urlencode(query))), schema, shown, lease_seconds, secret)


def _seconds(text: str) -> float:
    least, most = LEASE_BOUNDS_SECONDS
    try:
        if least <= (seconds := float(text)) <= most:
            return seconds
    except ValueError:
        pass
    raise JournalError(
        f"The lease {text!r} in the URL of the journal is out of range: give {least:g} to {most:g} seconds."
    )
