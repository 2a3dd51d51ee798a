"""Passwords and services in files: what ``psql`` does with them, a journal does too, and says what is wrong there."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest
from support.postgres import PASSWORD, Database, database, needs_postgres

from osmosis_ai.rollout.journal import JournalError, PostgresJournal
from osmosis_ai.rollout.journal.postgres.address import parse
from osmosis_ai.rollout.journal.postgres.link import connect

pytestmark = [pytest.mark.slow, needs_postgres]

SECRET = "se:cr\\et %s #1 \"'ü= x"
ESCAPED = SECRET.replace("\\", "\\\\").replace(":", "\\:")
USER, BASE = 'ödd:\\"user', "base:\\ x"
ESCAPED_USER, ESCAPED_BASE = (name.replace("\\", "\\\\").replace(":", "\\:") for name in (USER, BASE))


@pytest.fixture(scope="module")
def odd() -> Iterator[Database]:
    """A database and a user whose names have all that means something somewhere."""
    with database() as running:
        quoted = USER.replace('"', '""')
        running.ask(f"CREATE ROLE \"{quoted}\" SUPERUSER LOGIN PASSWORD '{SECRET.replace(chr(39), 2 * chr(39))}'")
        running.ask(f'CREATE DATABASE "{BASE}"')
        yield running


@dataclass(frozen=True)
class Case:
    """Files, and whether who has them gets in; else what is said."""

    refusal: str | None = None
    password_file: str | None = None
    services: str | None = None
    mode: int = 0o600
    host: str = "127.0.0.1:PORT"
    """Empty: the service's."""
    query: str = ""
    variables: dict[str, str] = field(default_factory=dict)


LINE = f"127.0.0.1:PORT:{ESCAPED_BASE}:{ESCAPED_USER}:{ESCAPED}"
SERVICE = f"[odd one]\nhost=127.0.0.1\nport=PORT\nuser={USER}\ndbname={BASE}\n"
IN_SERVICE = {"PGSERVICE": "odd one"}
NO_LINE = "has no line for this host, port, database and user"
CASES = {
    "escaped": Case(password_file=LINE),
    "not escaped": Case("refuses this user", f"*:*:*:*:{SECRET}"),
    "stars, a comment, others, Windows' ends": Case(
        password_file=f"# x:y\r\n\r\nother:*:*:*:no\r\n*:*:*:*:{ESCAPED}\r\n"
    ),
    "a blank behind it is part of it": Case("refuses this user", f"*:*:*:*:{ESCAPED} "),
    "the first line counts": Case("refuses this user", f"*:*:*:*:no\n{LINE}"),
    "another encoding in another's line": Case(password_file=f"o\udcffher:*:*:*:no\n{LINE}"),
    "another encoding": Case("Line 1 of the password file .* is not UTF-8", "*:*:*:*:\udcff"),
    "no such line": Case(NO_LINE, LINE.replace("127.0.0.1", "localhost")),
    "open to others": Case("is open to others, so it is not read: chmod 600", LINE, mode=0o640),
    "no file": Case(r"cannot be read \(No such file"),
    "a folder": Case("is no plain file", variables={"PGPASSFILE": "/"}),
    "a variable before it": Case("refuses this user", LINE, variables={"PGPASSWORD": "no"}),
    "an empty variable": Case(password_file=LINE, variables={"PGPASSWORD": ""}),
    "service": Case(
        services=f"# x\n\n{SERVICE}password={SECRET}\n[other]\npassword=no\n", host="", variables=IN_SERVICE
    ),
    "service, password in the other file": Case(None, LINE, SERVICE, host="", variables=IN_SERVICE),
    "service of the URL": Case(None, LINE, SERVICE, host="", query="service=odd%20one"),
    "service beside a host": Case(services=f"[odd one]\npassword={SECRET}", variables=IN_SERVICE),
    "service, what matters to libpq alone": Case(
        services=f"{SERVICE}connect_timeout=5\nkeepalives=1\npassword={SECRET}", host="", variables=IN_SERVICE
    ),
    "service, the first of a name counts": Case(
        "refuses this user", services=f"{SERVICE}password=no\npassword={SECRET}", host="", variables=IN_SERVICE
    ),
    "no such service": Case("is in no service file", services=SERVICE, host="", variables={"PGSERVICE": "other"}),
    "a URL for a service": Case(
        "is in no service file", services=SERVICE, host="", variables={"PGSERVICE": f"postgresql://me:{PASSWORD}@h"}
    ),
    "no service file": Case(r"of PGSERVICEFILE cannot be read \(No such file", LINE, host="", variables=IN_SERVICE),
    "blanks around =": Case(
        "Line 2 of the service file .* is none that libpq takes",
        services=f"[odd one]\nhost = 127.0.0.1\npassword={SECRET}",
        variables=IN_SERVICE,
    ),
    "no =": Case("Line 2 of .* takes", services="[odd one]\nport", variables=IN_SERVICE),
    "a name that is none": Case(
        "does not take a parameter of the URL, or of its service",
        services=f"[odd one]\npasword={SECRET}\npassword={SECRET}",
        variables=IN_SERVICE,
    ),
    "a port that is none": Case("The port .* is no number", host="127.0.0.1", variables={"PGPORT": "many"}),
    "more ports than hosts": Case("not one for each host", host="127.0.0.1", variables={"PGPORT": "1,2"}),
}


def psql_gets_in(url: str) -> bool | None:
    """``None``: there is none here."""
    if (psql := shutil.which("psql")) is None:
        return None
    return subprocess.run([psql, "-w", url, "-c", "SELECT 1"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", CASES)
async def test_a_journal_opens_with_the_files_with_which_psql_does(
    odd: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    case = CASES[name]
    folder = tmp_path / "a folder: ü \\ 'x'"
    folder.mkdir()
    for variable in [each for each in os.environ if each.startswith("PG")]:
        monkeypatch.delenv(variable)
    for variable, content in (("PGPASSFILE", case.password_file), ("PGSERVICEFILE", case.services)):
        file = folder / f"of {variable}"
        if content is not None:
            file.write_bytes(content.replace("PORT", str(odd.port)).encode("utf-8", "surrogateescape"))
            file.chmod(case.mode)
        monkeypatch.setenv(variable, str(file))
    for variable, value in case.variables.items():
        monkeypatch.setenv(variable, value)
    host = case.host.replace("PORT", str(odd.port))
    url = f"postgresql://{quote(USER)}@{host}/{quote(BASE)}?{case.query}" if host else f"postgresql://?{case.query}"
    assert psql_gets_in(url) in (case.refusal is None, None)
    journal = PostgresJournal(f"{url}&schema=shared")
    if case.refusal is None:
        async with journal:
            assert await journal.counts()
        return
    with pytest.raises(JournalError, match=case.refusal) as refused:
        await journal.open()
    said = f"{refused.value!s} {refused.value!r} {refused.value.__cause__!r}"
    assert not any(secret in said for secret in (SECRET, PASSWORD, ESCAPED))
    assert "\n" not in str(refused.value)


async def test_all_that_a_url_says_reaches_the_database(odd: Database) -> None:
    """Two hosts, one of them away; a setting."""
    [_, there] = odd.new_url().split("@")
    url = f"postgresql://tester:{PASSWORD}@127.0.0.1:1,{there}&work_mem=7MB"
    connection = await connect(parse(url), "test")
    assert await connection.fetchval("SHOW work_mem") == "7MB"
    await connection.close()
