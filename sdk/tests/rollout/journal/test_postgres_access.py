"""Who gets at a journal in PostgreSQL, and how: URLs, TLS, rights. A real database, real certificates."""

import asyncio
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from support.journal import an_acceptance, claim_all
from support.partition import Partition
from support.postgres import KEPT_PASSWORD, PASSWORD, Database, database, needs_postgres, with_least_rights
from support.postgres_journal import asked, until_problem, until_true

from osmosis_ai.rollout.journal import JournalError, Payload, PostgresJournal, RolloutState
from osmosis_ai.rollout.journal.place import journal_at
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


async def test_who_may_only_read_looks(postgres: Database) -> None:
    url = postgres.new_url()
    reading = await with_least_rights(url, "operators")
    async with PostgresJournal(url) as journal, PostgresJournal(reading, create=False) as looking:
        await journal.accept(an_acceptance("key"))
        assert [record.key for record in await looking.records()] == ["key"]
        assert [record.key for record in await looking.find("rollout")] == ["key"]
        assert await looking.load("key", Payload.REQUEST) == b'{"n": 1}'
        assert (await looking.counts())[RolloutState.ACCEPTED] == 1
        assert await looking.oldest_unsettled() is not None
        async with asked(url) as connection:
            assert await connection.fetchval("SELECT count(*) FROM owners") == 1, "who looks is none"
        for write in (looking.reopen("key"), looking.purge(keys=["key"]), looking.claim_abandoned()):
            with pytest.raises(JournalError, match="denies what is needed: grant the user"):
                await write


async def test_a_standby_is_good_enough_to_look_at() -> None:
    with database("fsync=off") as primary:
        url = primary.new_url()
        async with PostgresJournal(url) as journal:
            await journal.accept(an_acceptance("key"))
        with database("fsync=off", standby_of=primary) as standby:
            async with PostgresJournal(url.replace(f":{primary.port}/", f":{standby.port}/"), create=False) as looking:
                assert [record.key for record in await looking.records()] == ["key"]
                with pytest.raises(JournalError, match="is read-only, a standby perhaps"):
                    await looking.reopen("key")


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


async def test_who_may_not_look_into_the_schema_is_told_so_too(postgres: Database) -> None:
    url = await with_least_rights(postgres.new_url())
    connection = await connect(parse(url.replace("//rollouts:", "//tester:")), "test")
    await connection.execute(f"REVOKE ALL ON SCHEMA {parse(url).schema} FROM rollouts")
    await connection.close()
    for create in (True, False):
        with pytest.raises(JournalError, match="grant the rights of docs/many-machines"):
            await PostgresJournal(url, create=create).open()


MISTAKES = {
    "another's password": ({PASSWORD: "wrong-secret"}, "refuses this user: correct the user's name, or the password"),
    "no password": ({f":{PASSWORD}": ""}, "refuses this user"),
    "no user": ({"tester": "nobody"}, "refuses this user"),
    "no database": ({"/postgres?": "/nowhere?"}, "has no such database: create it"),
    "no server": ({"PORT": "1"}, r"does not answer \(Connection refused\): start the database"),
    "no host": ({"127.0.0.1": "no-such-host.invalid"}, r"does not answer \(no such host\)"),
    "no socket": ({"127.0.0.1:PORT": "", "?": "?host=/nowhere&"}, r"does not answer \(No such file"),
    "no port": ({"PORT": "99999999"}, "cannot be read: give it as postgresql://USER"),
    "no TLS": ({"?": "?sslmode=require&"}, r"refuses TLS \(it speaks none\)"),
    "no such mode": ({"?": "?sslmode=nonsense&"}, "says what asyncpg cannot take"),
    "no certificate": ({"?": "?sslmode=verify-full&sslrootcert=/nowhere.crt&"}, "sslrootcert names .* is absent"),
    "a folder for a certificate": ({"?": "?sslmode=verify-full&sslrootcert=/tmp&"}, "sslrootcert names .* cannot be"),
    "another's parameter": ({"?": "?connect_timeout=5&"}, "does not take a parameter of the URL"),
    "a setting that is none": ({"?": "?work_mem=much&"}, "does not take a parameter of the URL"),
    "a standby": ({"?": "?target_session_attrs=standby&"}, "No host of .* is what target_session_attrs asks for"),
    "no such attribute": ({"?": "?target_session_attrs=nonsense&"}, "says what asyncpg cannot take"),
    "a schema that is none": ({"schema=": "schema=Not a name"}, "is no plain name"),
    "a lease that is none": ({"?": "?lease=0&"}, "is out of range"),
    "a slash in the password": ({PASSWORD: f"12/{PASSWORD}"}, "cannot be read: give it as postgresql://USER"),
    "a quoted URL": ({"postgresql:": '"postgresql:'}, "cannot be read: give it as postgresql://USER"),
}


@pytest.mark.parametrize(
    "setting",
    ["default_transaction_isolation = 'repeatable read'", "lock_timeout = '1ms'", "statement_timeout = '1ms'"],
)
async def test_what_a_role_is_set_to_changes_nothing(postgres: Database, setting: str) -> None:
    url = postgres.new_url()
    user = setting.partition(" ")[0]
    async with asked(url) as connection:
        await connection.execute(f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{KEPT_PASSWORD}'")
        await connection.execute(f"ALTER ROLE {user} SET {setting}")
        async with PostgresJournal(url.replace("//tester:", f"//{user}:")) as journal:
            await journal.accept(an_acceptance("key"))
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("UPDATE rollouts SET polled_at = 1")
            again = asyncio.ensure_future(journal.accept(an_acceptance("key")))
            await until_true(url, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")
            await transaction.commit()
            assert await again is not None


NO_WRITES = """
CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE disk_full; END $$;
CREATE TRIGGER no BEFORE INSERT ON rollouts FOR EACH ROW EXECUTE FUNCTION no();
CREATE TRIGGER no BEFORE UPDATE ON owners FOR EACH ROW WHEN (OLD.beats = NEW.beats) EXECUTE FUNCTION no();
"""
"""But a renewal of the lease."""


async def test_who_can_write_nothing_says_so_though_the_lease_is_renewed(postgres: Database) -> None:
    url = postgres.new_url(lease=LEASE_SECONDS)
    async with PostgresJournal(url) as journal, asked(url) as connection:
        await connection.execute(NO_WRITES)
        with pytest.raises(JournalError, match="is short of something"):
            await journal.accept(an_acceptance("key"))
        for _ in range(3):
            await journal._home.call(journal._lease.renew)  # type: ignore[union-attr]
            assert "is short of something" in str(journal.problem)
        await connection.execute("DROP FUNCTION no CASCADE")
        await until_problem(journal, there_is=False)
        assert await journal.accept(an_acceptance("key")) is None


async def test_another_programs_table_is_told(postgres: Database) -> None:
    url = postgres.new_url()
    async with journal_at(url), asked(url) as connection:
        await connection.execute("DROP TABLE version; CREATE TABLE version (version text)")
        with pytest.raises(JournalError, match="has another program's table `version`: name another schema"):
            await journal_at(url).open()


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_what_is_wrong_is_one_sentence_that_says_no_password(
    postgres: Database, mistake: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    changes, sentence = MISTAKES[mistake]
    url = postgres.new_url()
    for old, new in changes.items():
        old, new = (text.replace("PORT", str(postgres.port)) for text in (old, new))
        assert old in url
        url = url.replace(old, new, 1)
    with pytest.raises(JournalError, match=sentence) as refused:
        await journal_at(url).open()
    said = f"{refused.value!s} {refused.value!r} {refused.value.__cause__!r} {caplog.text}"
    assert not any(secret in said for secret in (PASSWORD, "wrong-secret", "tester"))
    assert "\n" not in str(refused.value)


async def test_a_proxy_without_a_database_behind_it_is_no_question_of_tls() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        for mode in ("prefer", "require"):
            with pytest.raises(JournalError, match=r"does not answer \((it closes the connection|Connection reset)"):
                await PostgresJournal(f"postgresql://me@127.0.0.1:{port}/x?sslmode={mode}").open()


@pytest.mark.parametrize("scheme", ["postgres", "POSTGRESQL"])
async def test_a_password_of_any_characters_opens(postgres: Database, scheme: str) -> None:
    password = "a@b%zz/?#: ü"
    url = postgres.new_url()
    connection = await connect(parse(url), "test")
    user = f"odd_{scheme.lower()}"
    await connection.execute(f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'")
    await connection.close()
    for written in (quote(password, safe=""), quote(password, safe="@:%")):
        async with PostgresJournal(
            url.replace(f"postgresql://tester:{PASSWORD}", f"{scheme}://{user}:{written}")
        ) as journal:
            assert await journal.counts()


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="osmosis-socket-", dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


async def test_a_socket_of_this_machine_is_a_host(socket_folder: Path) -> None:
    with database("fsync=off", f"unix_socket_directories={socket_folder}") as own:
        query = own.new_url().partition("?")[2]
        for url in (
            f"postgresql://tester:{PASSWORD}@/postgres?host={socket_folder}&port={own.port}&{query}",
            f"postgresql://tester:{PASSWORD}@{quote(str(socket_folder), safe='')}:{own.port}/postgres?{query}",
        ):
            async with PostgresJournal(url) as journal:
                assert await journal.counts()
