"""Who gets at a journal in PostgreSQL, and how: TLS, rights. A real database, real certificates."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.journal import an_acceptance, claim_all
from support.partition import Partition
from support.postgres import Database, database, needs_postgres, with_least_rights

from osmosis_ai.rollout.journal import JournalError, PostgresJournal
from osmosis_ai.rollout.journal.postgres.address import parse
from osmosis_ai.rollout.journal.postgres.link import connect

pytestmark = [pytest.mark.slow, needs_postgres]
DEADLINE_SECONDS = 60.0
LEASE_SECONDS = 1.5
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="There is no openssl here: install it.")


@dataclass(frozen=True)
class Secured:
    """A database that takes nothing but TLS, whose certificate is of 127.0.0.1 and signed by itself."""

    database: Database
    certificate: Path
    other_certificate: Path
    """Another's, who has signed nothing here."""


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )  # fmt: skip
    key.chmod(0o600)
    if os.getuid() == 0:
        shutil.chown(key, "postgres", "postgres")
    return certificate, key


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    with tempfile.TemporaryDirectory(prefix="osmosis-tls-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        certificate, key = make_certificate(folder, "server")
        other_certificate, _ = make_certificate(folder, "other")
        rules = folder / "pg_hba.conf"
        rules.write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
        rules.chmod(0o644)
        with database(
            "fsync=off", "ssl=on", f"ssl_cert_file={certificate}", f"ssl_key_file={key}", f"hba_file={rules}"
        ) as running:
            yield Secured(running, certificate, other_certificate)


@needs_openssl
@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_all_connections_speak_tls(secured: Secured, mode: str) -> None:
    parameters = {} if mode == "require" else {"sslrootcert": secured.certificate}
    url = secured.database.new_url(sslmode=mode, **parameters)
    async with PostgresJournal(url) as journal:
        assert await journal.accept(an_acceptance()) is None
        assert await journal.finish("key", b"result")
        connection = await connect(parse(url), "test")
        spoken = await connection.fetch(
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'osmosis %'"
        )
        await connection.close()
    assert [row["ssl"] for row in spoken] == [True] * 3


@needs_openssl
@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_a_certificate_that_nobody_known_has_signed_is_refused(secured: Secured, mode: str) -> None:
    url = secured.database.new_url(sslmode=mode, sslrootcert=secured.other_certificate)
    with pytest.raises(JournalError, match=r"refuses TLS .*: correct sslmode and sslrootcert"):
        await PostgresJournal(url).open()


@needs_openssl
async def test_a_certificate_of_another_host_is_refused_in_full_only(secured: Secured) -> None:
    for mode, is_refused in (("verify-full", True), ("verify-ca", False)):
        url = secured.database.new_url(sslmode=mode, sslrootcert=secured.certificate)
        journal = PostgresJournal(url.replace("127.0.0.1", "localhost"))
        if is_refused:
            with pytest.raises(JournalError, match="refuses TLS"):
                await journal.open()
        else:
            async with journal:
                assert await journal.accept(an_acceptance()) is None


@needs_openssl
async def test_what_is_wrong_with_tls_is_said_without_the_password(secured: Secured, tmp_path: Path) -> None:
    for parameters in (
        {"sslmode": "disable"},
        {"sslmode": "verify-full", "sslrootcert": tmp_path / "absent.crt"},
        {"sslmode": "verify-full", "sslrootcert": __file__},
    ):
        url = secured.database.new_url(**parameters)
        with pytest.raises(JournalError) as refused:
            await PostgresJournal(url).open()
        assert "pass-word" not in f"{refused.value!r} {refused.value.__cause__!r}"
        assert "journal at 127.0.0.1" in str(refused.value)


async def test_who_may_only_use_the_tables_takes_over_and_reconnects(postgres: Database) -> None:
    """Beyond the contract, whose tests run with these rights too (``conftest``)."""
    url = await with_least_rights(postgres.new_url(lease=LEASE_SECONDS))
    with Partition(postgres.port) as partition:
        cut = PostgresJournal(url.replace(f":{postgres.port}/", f":{partition.port}/"))
        async with asyncio.timeout(DEADLINE_SECONDS), PostgresJournal(url) as other, cut:
            await cut.accept(an_acceptance("key"))
            partition.cut()
            while not (claimed := await claim_all(other)):  # noqa: ASYNC110 - as below
                await asyncio.sleep(0.02)
            assert [record.key for record in claimed] == ["key"]
            partition.mend()
            while cut.problem is not None or not cut._lease.was_lost:  # noqa: ASYNC110 - properties are all there is
                await asyncio.sleep(0.02)
            assert await cut.accept(an_acceptance("new")) is None
            assert await other.ask_cancel([], None, True) == ["rollout"]
            async with PostgresJournal(url, create=False) as looking:
                assert [record.key for record in await looking.records()] == ["new", "key"]
    connection = await connect(parse(url), "test")
    for statement in ("CREATE TABLE more ()", "DROP TABLE rollouts", "ALTER TABLE rollouts ADD more int"):
        with pytest.raises(Exception, match=r"permission denied|must be owner"):
            await connection.execute(statement)
    await connection.close()


async def test_who_has_no_rights_is_told_where_they_are_listed(postgres: Database) -> None:
    url = (await with_least_rights(postgres.new_url())).partition("?")[0] + "?schema=another"
    with pytest.raises(JournalError, match="denies what is needed: grant the user the rights of"):
        await PostgresJournal(url).open()
