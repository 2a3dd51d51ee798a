"""The journal and the traces, in real files of real file systems."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.doctor import TESTS, assert_names, find, find_elsewhere
from support.journal import an_acceptance
from support.processes import own_environment

from osmosis_ai.rollout.journal import SqliteJournal
from osmosis_ai.rollout.tooling.doctor.storage import file_system_of
from osmosis_ai.rollout.tooling.doctor.types import Status

JOURNAL_CHECKS = ("journal", "journal-disk", "journal-file-system", "journal-owner", "journal-leftovers")


def make_journal(path: Path, *keys: str) -> None:
    """A journal with accepted rollouts, closed."""

    async def make() -> None:
        async with SqliteJournal(path) as journal:
            for key in keys:
                await journal.accept(an_acceptance(key))

    asyncio.run(make())


@contextmanager
def server_on(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has the journal open, with two rollouts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "support.journal_process", "hold", str(path), "2"],
        cwd=TESTS,
        env=own_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def mounted(options: str, folder: Path) -> tuple[str, ...]:
    """Words before a command that has ``folder`` as a file system of its own; skips where that is not permitted."""
    before = ("unshare", "-Urm", "sh", "-c", f'mount -t tmpfs -o {options} none "{folder}" && exec "$@"', "sh")
    try:
        subprocess.run([*before, "true"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here")
    return before


class TestHealth:
    def test_a_journal_that_is_not_there_yet_is_not_made(self, folder: Path) -> None:
        for check_id in JOURNAL_CHECKS:
            assert find(check_id).status is Status.OK
            assert find(check_id, journal="a/b/journal.db").status is Status.OK
        assert list(folder.iterdir()) == []

    def test_a_journal_that_is_there_stays_as_it_is(self, folder: Path) -> None:
        make_journal(folder / "journal.db", "one")
        content = (folder / "journal.db").read_bytes()
        for check_id in JOURNAL_CHECKS:
            assert find(check_id, journal="journal.db").status is Status.OK
        assert (folder / "journal.db").read_bytes() == content

    def test_the_setting_names_it(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_JOURNAL", str(folder / "elsewhere.db"))
        assert "elsewhere.db" in find("journal").message


class TestJournal:
    def test_that_is_off(self) -> None:
        assert_names(find("journal", journal="off"), Status.WARNING, "off", "lost")

    def test_whose_folder_is_a_file(self, folder: Path) -> None:
        (folder / "file").touch()
        assert_names(find("journal", journal="file/journal.db"), Status.PROBLEM, "Not a directory", "--journal")

    def test_where_nothing_can_be_made(self) -> None:
        assert_names(find("journal", journal="/proc/self/journal.db"), Status.PROBLEM, "cannot be written", "--journal")

    @pytest.mark.slow
    def test_on_a_read_only_file_system(self, folder: Path) -> None:
        finding = find_elsewhere("journal", *mounted("ro", folder), journal=str(folder / "journal.db"))
        assert_names(finding, Status.PROBLEM, "Read-only file system")

    @pytest.mark.slow
    def test_on_a_full_disk(self, folder: Path) -> None:
        finding = find_elsewhere("journal-disk", *mounted("size=1m", folder), journal=str(folder / "journal.db"))
        assert_names(finding, Status.PROBLEM, "1.0 MiB left", "Free some space")

    @pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(5000)])
    def test_that_is_something_else(self, folder: Path, content: bytes) -> None:
        (folder / "journal.db").write_bytes(content)
        finding = find("journal", journal="journal.db")
        assert_names(finding, Status.PROBLEM, "is not a rollout journal", "ove it away")
        assert (folder / "journal.db").read_bytes() == content

    def test_that_is_damaged(self, folder: Path) -> None:
        path = folder / "journal.db"
        make_journal(path, *map(str, range(200)))
        with path.open("r+b") as file:
            file.seek(8192)
            file.write(b"\xff" * 8192 * 3)
        assert_names(find("journal", journal=str(path)), Status.PROBLEM, "damaged", "osmosis journal salvage")

    def test_that_is_a_folder(self, folder: Path) -> None:
        (folder / "journal.db").mkdir()
        assert_names(find("journal", journal="journal.db"), Status.PROBLEM, "not a regular file")

    @pytest.mark.slow
    def test_that_another_process_has_locked(self, folder: Path) -> None:
        make_journal(folder / "journal.db")
        holder = sqlite3.connect(folder / "journal.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        try:
            assert_names(find("journal", journal="journal.db"), Status.PROBLEM, "locked by another process")
        finally:
            holder.close()


class TestOwners:
    @pytest.mark.slow
    def test_a_server_that_runs(self, folder: Path) -> None:
        with server_on(folder / "journal.db") as server:
            finding = find("journal-owner", journal="journal.db")
            assert_names(finding, Status.WARNING, f"process {server.pid}")
            assert find("journal-leftovers", journal="journal.db").status is Status.OK

    @pytest.mark.slow
    def test_a_server_that_was_killed(self, folder: Path) -> None:
        with server_on(folder / "journal.db") as server:
            server.kill()
            server.wait()
            finding = find("journal-leftovers", journal="journal.db")
        assert_names(finding, Status.WARNING, "owes 2 results", "stale lock", "Start the server")
        assert find("journal-owner", journal="journal.db").status is Status.OK

    def test_locks_that_are_left_over(self, folder: Path) -> None:
        make_journal(folder / "journal.db")
        (folder / "journal.db.owners" / "0123456789abcdef0123456789abcdef").touch()
        assert_names(find("journal-leftovers", journal="journal.db"), Status.WARNING, "stale locks")

    @pytest.mark.slow
    def test_files_of_a_journal_that_is_gone(self, folder: Path) -> None:
        with server_on(folder / "journal.db") as server:
            server.kill()
            server.wait()
        (folder / "journal.db").unlink()
        finding = find("journal-leftovers", journal="journal.db")
        assert_names(finding, Status.WARNING, "journal.db-wal", "move it back")


class TestFileSystem:
    # No network file system can be mounted by a test: the kernel's table is written by hand.
    TABLE = (
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "40 22 0:40 / {folder} rw,relatime shared:2 - nfs4 filer:/export rw,vers=4.2\n"
        "41 40 8:2 / {folder}/local rw - xfs /dev/sdb1 rw\n"
    )

    @pytest.mark.parametrize(
        ("path", "kind"), [("journal.db", "nfs4"), ("a/b/journal.db", "nfs4"), ("local/journal.db", "xfs")]
    )
    def test_is_that_of_the_nearest_mount(self, folder: Path, path: str, kind: str) -> None:
        (folder / "local").mkdir()
        table = folder / "mountinfo"
        table.write_text(self.TABLE.format(folder=folder))
        assert file_system_of(folder / path, table) == kind
        assert file_system_of(Path("/journal.db"), table) == "ext4"

    def test_a_network_file_system_is_named(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        table = folder / "mountinfo"
        table.write_text(self.TABLE.format(folder=folder))
        monkeypatch.setattr(file_system_of, "__defaults__", (table,))
        assert_names(find("journal-file-system", journal="journal.db"), Status.WARNING, "nfs4", "local disk")


class TestTraces:
    def test_no_folder_named(self) -> None:
        assert find("traces").status is Status.NOT_CHECKED

    def test_a_folder_that_can_be_made(self, folder: Path) -> None:
        assert find("traces", traces="a/b").status is Status.OK
        assert list(folder.iterdir()) == []

    def test_a_folder_that_cannot(self) -> None:
        assert_names(find("traces", traces="/proc/traces"), Status.PROBLEM, "cannot be written", "--log DIR")

    def test_a_file(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "traces").touch()
        monkeypatch.setenv("ROLLOUT_DEBUG_DIR", "traces")
        assert_names(find("traces"), Status.PROBLEM, "Traces cannot be written")
