"""Where a database is and who asks, as libpq puts it together: URL, a service's section, variables, a password file.

asyncpg reads the two files otherwise: it keeps the backslashes of a password, takes ``%`` in a service for something of
its own, and goes on without a service that is not there. So it is handed what was found here, and names no file.
Passwords are in ``Access.arguments`` alone, which no ``repr`` shows.
"""

import getpass
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from osmosis_ai.rollout.journal.errors import JournalError

DEFAULT_PORT = "5432"
NO_MATTER = (
    *("application_name", "client_encoding", "connect_timeout", "fallback_application_name", "gssencmode"),
    *("keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "tcp_user_timeout"),
    *("sslcompression", "sslsni"),
)
"""Names that a service may have for libpq, and that say nothing of where the database is or who asks."""
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_ENTRY = re.compile(4 * r"((?:\\.|[^\\:])*):" + r"((?:\\.|[^:])*)", re.DOTALL)
"""A line of a password file: host, port, database, user and password, in which a backslash makes : and \\ plain."""


@dataclass(frozen=True, slots=True)
class Access:
    """Of a URL, as things are now."""

    dsn: str = field(repr=False)
    """What is left for asyncpg: TLS, sessions, settings of the server."""
    arguments: Mapping[str, Any] = field(repr=False)
    """Of ``asyncpg.connect``: host, port, user, password, database."""
    lacking: str | None
    """Why there is no password, in half a sentence."""
    unreadable_file: str | None
    """Which name of a file for TLS has one that is not there, or cannot be read."""


def access(dsn: str) -> Access:
    """What ``dsn`` comes to. Raises ``JournalError``; and ``ValueError`` for what no file or host can be called."""
    said = _in_url(dsn)
    if service := said.pop("service", None) or os.environ.get("PGSERVICE"):
        for name, value in _section(service).items():
            said.setdefault(name, value)
    hosts = [host for host in _one_of(said, "host").split(",") if host]
    ports = _ports(_one_of(said, "port") or DEFAULT_PORT, len(hosts) or 1)
    user = _one_of(said, "user") or _own_name()
    database = said.pop("database", "") or _one_of(said, "dbname", "PGDATABASE") or user
    password = _one_of(said, "password")
    file = Path(_one_of(said, "passfile") or _at_home(".pgpass"))
    lacking = None
    if not password:
        places = list(zip(hosts or ["localhost"], ports, strict=True))
        password, lacking = _password(file, places, database, user)
    arguments = {"host": hosts or None, "port": ports, "user": user, "password": password, "database": database}
    files = ((name, said.get(name) or os.environ.get("PG" + name.upper())) for name in _FILES)
    unreadable = (name for name, each in files if each and not (Path(each).is_file() and os.access(each, os.R_OK)))
    return Access("postgresql://?" + urlencode(said), arguments, lacking, next(unreadable, None))


def _in_url(dsn: str) -> dict[str, str]:
    """Its parts by libpq's names; ``address`` has seen to it that they are plain."""
    parts = urlsplit(dsn)
    userinfo, _, places = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    # The port is behind the last colon, unless that is one of an address in brackets.
    divided = [re.fullmatch(r"(.*?)(?::(\d*))?", place) for place in places.split(",")]
    hosts = [unquote(place[1]).strip("[]") for place in divided if place is not None]
    ports = [place[2] or "" for place in divided if place is not None]
    said = {
        "host": ",".join(hosts),
        "port": ",".join(port or DEFAULT_PORT for port in ports) if any(ports) else "",
        "user": unquote(user),
        "password": unquote(password),
        "database": unquote(parts.path.removeprefix("/")),
    }
    return dict(parse_qsl(parts.query)) | {name: value for name, value in said.items() if value}


def _one_of(said: dict[str, str], name: str, variable: str | None = None) -> str:
    return said.pop(name, "") or os.environ.get(variable or "PG" + name.upper(), "")


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a number without a name, in a container
        raise JournalError("Who asks the journal's database has no name here: put USER@ into the URL.") from None


def _ports(text: str, hosts: int) -> list[int]:
    ports = [port or DEFAULT_PORT for port in text.split(",")]
    if not all(port.isdecimal() and int(port) < 2**16 for port in ports) or len(ports) not in (1, hosts):
        raise JournalError(
            f"The port of the journal's database, {text!r}, is no number, or not one for each host: correct it in the"
            " URL, in its service or in PGPORT."
        )
    return [int(port) for port in (ports * hosts)[:hosts]]


def _section(service: str) -> dict[str, str]:
    """What the service's file says under its name; the first line of a name counts."""
    for file, is_named in _service_files():
        try:
            content = file.read_bytes()
        except OSError as error:
            if is_named:
                raise JournalError(
                    f"The service file {file} of PGSERVICEFILE cannot be read ({error.strerror}): correct its path."
                ) from None
            continue
        lines = enumerate(content.decode("utf-8", "surrogateescape").split("\n"), 1)
        if any(line.strip() == f"[{service}]" for _, line in lines):
            return _pairs(file, lines)
    raise JournalError(
        "The service that the URL of the journal or PGSERVICE names is in no service file: correct its name, or name"
        " the file in PGSERVICEFILE."
    )


def _service_files() -> Iterator[tuple[Path, bool]]:
    """Those that there may be, and whether somebody has named the file itself."""
    if named := os.environ.get("PGSERVICEFILE"):
        yield Path(named), True
        return
    yield _at_home(".pg_service.conf"), False
    if folder := os.environ.get("PGSYSCONFDIR"):
        yield Path(folder) / "pg_service.conf", False


def _at_home(name: str) -> Path:
    try:
        return Path.home() / name
    except RuntimeError:  # who asks has no home
        return Path("/", name)


def _pairs(file: Path, lines: Iterator[tuple[int, str]]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for number, line in lines:
        line = line.strip()
        if line.startswith("["):
            break
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.isidentifier() or name == "service":
            raise JournalError(
                f"Line {number} of the service file {file} is none that libpq takes: write NAME=VALUE, without blanks"
                " around the =."
            )
        if name not in NO_MATTER:
            pairs.setdefault(name, _utf8(value, f"Line {number} of the service file {file}"))
    return pairs


def _password(file: Path, places: list[tuple[str, int]], database: str, user: str) -> tuple[str, str | None]:
    """Of the first line for one of ``places``; or none, and why."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            return "", f"the password file {file} is no plain file"
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) and os.name == "posix":
            return "", f"the password file {file} is open to others, so it is not read: chmod 600"
        content = file.read_bytes()
    except OSError as error:
        return "", f"the password file {file} cannot be read ({error.strerror})"
    entries = [
        (number, entry.groups())
        for number, line in enumerate(content.decode("utf-8", "surrogateescape").split("\n"), 1)
        if not line.startswith("#") and (entry := _ENTRY.match(line.rstrip("\r"))) is not None
    ]
    for host, port in places:
        for number, (*patterns, password) in entries:
            wanted = (host, str(port), database, user)
            if all(pattern == "*" or _plain(pattern) == it for pattern, it in zip(patterns, wanted, strict=True)):
                return _utf8(_plain(password), f"Line {number} of the password file {file}"), None
    return "", f"the password file {file} has no line for this host, port, database and user"


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _utf8(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise JournalError(f"{where} is not UTF-8: save the file as that.") from None
    return text
