"""Where a journal in PostgreSQL is: the URL as it was given, and what of it may be shown.

Invariants: user and password are in ``dsn`` alone, which is in no ``repr`` and no sentence. What is meant as a URL is
never taken for a path, nor a part of a password for a host, so neither makes a folder of that name or asks for it.
"""

import os
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from osmosis_ai.rollout.journal.errors import JournalError

SCHEMES = ("postgresql", "postgres")
DEFAULT_SCHEMA = "osmosis"
LEASE_SECONDS = 15.0
LEASE_BOUNDS_SECONDS = (1.0, 3600.0)
MOST_PORT = 65535
_SCHEMA = re.compile(r"(?!pg_|information_schema$)[a-z_][a-z0-9_]{0,54}")
"""Short enough for the name of a channel with it, and none of PostgreSQL's own."""
_SERVICE = re.compile(r"[\w .-]+")
_MEANT_AS_URL = re.compile(r"[\"'\s]*(jdbc:)?postgres(ql)?(\+\w+)?:|[^/]*://", re.IGNORECASE)
_PLACE = re.compile(r"(\[[^\]]*\]|[^\[\]:]*)(:(?P<port>[0-9]{0,5}))?")
UNREADABLE = (
    "The URL of the journal cannot be read: give it as postgresql://USER@HOST:PORT/DATABASE?NAME=VALUE, and write %2F"
    " for /, %3F for ? and %23 for # in a password."
)


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
    """Whether a journal's place is, or is meant as, the URL of a database."""
    return isinstance(where, str) and _MEANT_AS_URL.match(where) is not None


def parse(url: str) -> Address:
    """``postgresql://[user[:password]@][host][:port][/database][?schema=osmosis&lease=15&...]``.

    The parameters ``schema`` and ``lease`` are ours, the others are those of libpq, as asyncpg takes them (``libpq``).
    Raises ``JournalError``.
    """
    parts = _split(url.strip())
    userinfo, at, places = parts.netloc.rpartition("@")
    user, colon, password = (part if part == ":" else quote(unquote(part), safe="") for part in userinfo.partition(":"))
    parts = parts._replace(netloc=user + colon + password + at + places)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema = query.pop("schema", DEFAULT_SCHEMA)
    if _SCHEMA.fullmatch(schema) is None:
        raise JournalError(
            f"The schema {schema!r} in the URL of the journal is no plain name: use at most 55 small letters,"
            " digits and _, and none that PostgreSQL keeps for itself."
        )
    lease_seconds = _seconds(query.pop("lease", str(LEASE_SECONDS)))
    place = places or query.get("host") or _service(query) or "the default host"
    path = parts.path if len(parts.path) > 1 else ""  # one that names nothing would hide the database of a service
    shown = place + path
    if schema != DEFAULT_SCHEMA:
        shown += f" (schema {schema})"
    secret = query.get("password") or unquote(password) or None
    return Address(urlunsplit(parts._replace(path=path, query=urlencode(query))), schema, shown, lease_seconds, secret)


def _service(query: dict[str, str]) -> str | None:
    """As it may be shown: what somebody takes for a service may be a URL with a password."""
    service = query.get("service") or os.environ.get("PGSERVICE")
    return service if service is None or _SERVICE.fullmatch(service) else "a service"


def _split(url: str) -> SplitResult:
    """Its parts; only such as no character of a password can have moved where it does not belong."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise JournalError(UNREADABLE) from None
    matched = [_PLACE.fullmatch(place) for place in parts.netloc.rpartition("@")[2].split(",")]
    if (
        parts.scheme not in SCHEMES
        or url[len(parts.scheme) :][:3] != "://"
        or "#" in url
        or "@" in parts.path
        or not all("=" in piece for piece in parts.query.split("&") if piece)
        or not all(place is not None and int(place["port"] or 0) <= MOST_PORT for place in matched)
    ):
        raise JournalError(UNREADABLE)
    return parts


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
