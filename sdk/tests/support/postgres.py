"""A PostgreSQL of the tests' own: a cluster in a temporary folder, a port of 127.0.0.1, gone at the end.

Debian's ``initdb`` and ``postgres``, or those on the PATH. PostgreSQL refuses to run as root: then it is the user
``postgres``.
"""

import asyncio
import base64
import hashlib
import hmac
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psutil
import pytest

from osmosis_ai.rollout.journal.postgres.address import parse
from osmosis_ai.rollout.journal.postgres.link import connect
from osmosis_ai.rollout.journal.postgres.schema import prepare

START_SECONDS = 60.0
PASSWORD = "pass-word-of-tests"
PAGE = Path(__file__).parents[3] / "docs" / "many-machines.md"
_schemas = count()


def _scram(password: str) -> str:
    """``password`` as PostgreSQL keeps it, hashed once and not 4,096 times: asyncpg does that in Python, each time."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    parts = (base64.b64encode(part).decode() for part in (salt, stored, hmac.digest(salted, b"Server Key", "sha256")))
    return "SCRAM-SHA-256$1:{}${}:{}".format(*parts)


KEPT_PASSWORD = _scram(PASSWORD)


def _program(name: str) -> str | None:
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    return shutil.which(name) or (str(debian[-1]) if debian else None)


INITDB, POSTGRES = _program("initdb"), _program("postgres")
MISSING = "There is no PostgreSQL here (initdb, postgres): install the package 'postgresql'."
if (INITDB is None or POSTGRES is None) and os.environ.get("OSMOSIS_TEST_REQUIRES_POSTGRES"):
    raise RuntimeError(MISSING)
needs_postgres = pytest.mark.skipif(INITDB is None or POSTGRES is None, reason=MISSING)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Database:
    """A cluster, from ``start`` to ``stop``."""

    def __init__(
        self, folder: Path, *options: str, standby_of: "Database | None" = None, log: Path | None = None
    ) -> None:
        self.port = free_port()
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._as_user = (
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        )
        if self._as_user:
            for each in (folder, *([] if log is None else [log])):
                shutil.chown(each, "postgres", "postgres")
        if standby_of is not None:
            standby_of.copy_to(folder / "data")
            return
        assert INITDB is not None
        password = folder / "password"
        password.write_text(KEPT_PASSWORD)
        password.chmod(0o644)
        subprocess.run(
            [*self._as_user, INITDB, "--no-sync", "--auth=scram-sha-256", "--username=tester", f"--pwfile={password}",
             "--encoding=UTF8", "--locale=C", *([] if log is None else [f"--waldir={log / 'log'}"]), folder / "data"],
            check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def copy_to(self, data: Path) -> None:
        """Make the data of a standby."""
        program = _program("pg_basebackup")
        assert program is not None
        subprocess.run(
            [*self._as_user, program, "-D", data, "-R", "-X", "stream", "-c", "fast", "-h", "127.0.0.1",
             "-p", str(self.port), "-U", "tester"],
            check=True,
            env=os.environ | {"PGPASSWORD": PASSWORD},
        )  # fmt: skip

    def ask(self, query: str) -> None:
        """Have it done, outside a transaction."""

        async def ask() -> None:
            connection = await connect(parse(self.new_url()), "test")
            await connection.execute(query)
            await connection.close()

        asyncio.run(ask())

    def limit_file_size(self, size_bytes: int | None) -> None:
        """As a full disk: none of its files may grow beyond ``size_bytes``; ``None``: all may again."""
        limit = "unlimited" if size_bytes is None else size_bytes
        for process in self._processes():
            # By a program, as even root may not do that to another user's process in every container.
            subprocess.run(
                [*self._as_user, "prlimit", f"--pid={process.pid}", f"--fsize={limit}:unlimited"], check=True
            )

    def start(self) -> None:
        assert POSTGRES is not None
        options = ("listen_addresses=127.0.0.1", f"port={self.port}", "unix_socket_directories=", *self._options)
        arguments = [word for option in options for word in ("-c", option)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, POSTGRES, "-D", self._folder / "data", *arguments], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        # Of a standby: "read-only connections".
        while not re.search("ready to accept (read-only )?connections", self._log_since_start()):
            assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.02)

    def _log_since_start(self) -> str:
        return (self._folder / "log").read_text().rpartition("starting PostgreSQL")[2]

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT is a fast shutdown, SIGQUIT a crash."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait()

    def signal(self, number: signal.Signals) -> None:
        """A signal to all its processes."""
        for process in self._processes():
            process.send_signal(number)

    @property
    def pid(self) -> int:
        """Of the first of its processes."""
        assert self._process is not None
        return self._process.pid

    def _processes(self) -> list[psutil.Process]:
        parent = psutil.Process(self.pid)
        return [parent, *parent.children(recursive=True)]

    def new_url(self, **parameters: object) -> str:
        """Of a journal that is not there yet."""
        more = "".join(f"&{name}={value}" for name, value in parameters.items())
        schema = f"journal_{os.getpid()}_{next(_schemas)}"
        return f"postgresql://tester:{PASSWORD}@127.0.0.1:{self.port}/postgres?schema={schema}{more}"


@contextmanager
def database(
    *options: str, standby_of: Database | None = None, disk: Path | None = None, log_disk: Path | None = None
) -> Iterator[Database]:
    """A running one; by default it does not wait for the disk. All its files are on ``disk``, but for its log."""
    folder = Path(tempfile.mkdtemp(prefix="osmosis-postgres-", dir=disk or "/tmp"))  # noqa: S108 - a folder of its own there
    folder.chmod(0o755)
    try:
        made = Database(
            folder,
            *(options or ("fsync=off", "synchronous_commit=off", "full_page_writes=off")),
            standby_of=standby_of,
            log=log_disk,
        )
        made.start()
        try:
            yield made
        finally:
            made.stop(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def end_leases(url: str) -> None:
    """What a lease's end and the look of another replica make of all owners."""
    connection = await connect(parse(url), "test")
    await connection.execute("UPDATE owners SET lease_until = '-infinity'")
    await connection.close()


async def with_least_rights(url: str, user: str = "rollouts") -> str:
    """The same journal, made if need be, for a user who has no rights but those that docs/many-machines.md lists."""
    address = parse(url)
    (rights,) = (
        block for block in re.findall("```sql\n(.*?)```", PAGE.read_text(), re.DOTALL) if f"TO {user};" in block
    )
    connection = await connect(address, "test")
    try:
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", user):
            await connection.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{KEPT_PASSWORD}'")
        await prepare(connection, address, create=True)
        await connection.execute(re.sub(r"\bosmosis\b", address.schema, rights))
    finally:
        await connection.close()
    return url.replace("//tester:", f"//{user}:")
