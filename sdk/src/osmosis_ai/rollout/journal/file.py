"""Opening a journal's file: what is refused, what is made, and with which modes.

Invariants: a file that is not a journal is never written to, nor is anything made beside it; a journal appears under
its name complete or not at all; it, its ``-wal`` and its ``-shm`` can be read by their user alone. Beside it lies
``<name>.owners/`` with a file for each owner that lives (see ``owner``) and ``opening``, locked while somebody opens.

The file is never opened but through SQLite: closing any descriptor of it would drop the POSIX locks that other
connections of this process hold (SQLite, "How To Corrupt An SQLite Database File", section 2.2).
"""

import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from osmosis_ai.rollout.journal import table
from osmosis_ai.rollout.journal.errors import JournalError, JournalGoneError
from osmosis_ai.rollout.journal.owner import Owner, is_alive, lock, sweep

APPLICATION_ID = 0x6F736A6C
SCHEMA_VERSION = 1
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
PAGE_BYTES = 8192
WAL_CHECKPOINT_PAGES = 2048
WAL_KEPT_BYTES = 32 * 1024 * 1024
CHECKED_AT_OPENING_BYTES = 64 * 1024 * 1024
_LOCK_POLL_SECONDS = 0.005
_SIDE_FILES = ("-wal", "-shm", "-journal")


class Synchronous(StrEnum):
    """When a commit waits for the disk. Both survive the end of the process, however it ends."""

    NORMAL = "normal"
    """At checkpoints only: a power loss or a crash of the operating system may lose the last commits."""
    FULL = "full"
    """At each (grouped) commit."""


@dataclass(frozen=True, slots=True)
class FileOptions:
    synchronous: Synchronous
    busy_timeout_seconds: float
    max_bytes: int | None
    reserve_bytes: int
    create: bool


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A journal's file while it is open, with the owner that opened it."""

    path: Path
    connection: sqlite3.Connection
    owner: Owner
    identity: os.stat_result
    options: FileOptions

    def require_in_place(self) -> None:
        """Raise ``JournalGoneError`` if the file has lost its name: what it keeps would never be found again."""
        with suppress(OSError):
            if os.path.samestat(self.path.stat(), self.identity):
                return
        raise JournalGoneError(f"The journal {self.path} was moved or removed while in use: restart the server.")

    def require_room(self) -> None:
        """Raise ``JournalError`` if less than the reserve is left for more rollouts."""
        disk = os.statvfs(self.path.parent)
        self._require_room(disk.f_bavail * disk.f_frsize, self.options.reserve_bytes, "its disk")
        if (max_bytes := self.options.max_bytes) is not None:
            reserve_bytes = min(self.options.reserve_bytes, max_bytes // 4)
            self._require_room(max_bytes - self.used_bytes, reserve_bytes, "its size limit")

    def _require_room(self, room_bytes: int, reserve_bytes: int, bound: str) -> None:
        if room_bytes < reserve_bytes:
            raise JournalError(
                f"The journal {self.path} takes no more rollouts, {room_bytes} bytes short of {bound}: free some space."
            )

    @property
    def used_bytes(self) -> int:
        return self._pages("page_count") * PAGE_BYTES - self.free_bytes

    @property
    def free_bytes(self) -> int:
        """Within the file."""
        return self._pages("freelist_count") * PAGE_BYTES

    def _pages(self, pragma: str) -> int:
        (pages,) = self.connection.execute(f"PRAGMA {pragma}").fetchone()
        return int(pages)

    def without_waiting(self, work: Callable[[Self], None]) -> None:
        """Run ``work``, which fails at once where it would wait for another process."""
        self.connection.execute("PRAGMA busy_timeout = 0")
        try:
            work(self)
        finally:
            self.connection.execute(f"PRAGMA busy_timeout = {int(self.options.busy_timeout_seconds * 1000)}")

    def is_alive(self, owner: str) -> bool:
        """Whether ``owner`` lives, this one or another."""
        return owner == self.owner.token or is_alive(owners_directory(self.path), owner)

    def sweep(self) -> None:
        """Remove what dead owners left."""
        sweep(owners_directory(self.path))

    def close(self) -> None:
        try:
            self.connection.close()
        finally:
            self.owner.release()


def owners_directory(path: Path) -> Path:
    return path.with_name(path.name + ".owners")


def open_file(path: Path, options: FileOptions) -> OpenFile:
    """Open the journal at ``path``, made if absent, as a new owner.

    Raises ``JournalError``, ``OSError`` or ``sqlite3.Error``; see ``explain.journal_error``.
    """
    if sys.platform == "win32":
        raise JournalError("The journal needs POSIX file locks, which Windows lacks: switch the journal off.")
    if options.create:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    # Links on the way are resolved; a link in the last place is refused by `_exists_as_journal`.
    path = path.parent.resolve() / path.name
    if not _exists_as_journal(path) and not options.create:
        raise JournalError(f"There is no journal at {path}: name the one that the server uses.")
    owners_directory(path).mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    with _alone(path, options.busy_timeout_seconds):
        if not _exists_as_journal(path):
            _create(path)
        _make_private(path)
        connection = _connect(path, options)
        try:
            sweep(owners_directory(path))
            return OpenFile(path, connection, Owner(owners_directory(path)), path.stat(), options)
        except BaseException:
            connection.close()
            raise


def _exists_as_journal(path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(status.st_mode):
        raise JournalError(f"The journal {path} is not a regular file (links are refused too): name a file.")
    # SQLite names the log after the path: two names of one file would have two logs.
    if status.st_nlink > 1:
        raise JournalError(f"The journal {path} has a second name (a hard link): remove one of the two.")
    if status.st_size == 0:
        return False
    # Immutable: SQLite then makes no -wal or -shm beside a file that may be somebody else's, and takes no lock.
    # Both numbers are in the file itself, as `_create` writes them before it turns to WAL.
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        application_id, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
    if application_id != APPLICATION_ID:
        raise JournalError(f"The file {path} is not a rollout journal: move it away, or name another path.")
    if version != SCHEMA_VERSION:
        raise JournalError(
            f"The journal {path} has schema {version}, which this SDK does not know (it writes {SCHEMA_VERSION}): "
            "use the SDK that wrote it, or name another path."
        )
    return True


@contextmanager
def _alone(path: Path, timeout_seconds: float) -> Iterator[None]:
    """One opener at a time, so that two processes that start together do not both make the file."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(owners_directory(path) / "opening", flags, FILE_MODE)
    try:
        deadline = time.monotonic() + timeout_seconds
        while not lock(descriptor, exclusive=True):
            if time.monotonic() > deadline:
                raise JournalError(f"The journal {path} is being opened by another process: end it, then try again.")
            time.sleep(_LOCK_POLL_SECONDS)
        yield
    finally:
        # The lock file stays: if it were removed, two openers could each hold a lock on a file of that name.
        os.close(descriptor)


def _create(path: Path) -> None:
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    # A log left by a removed file would be applied to the new one.
    for stale in (name + suffix for name in (draft.name, path.name) for suffix in _SIDE_FILES):
        path.with_name(stale).unlink(missing_ok=True)
    # Not left to SQLite, which would make it readable for all.
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE))
    with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("BEGIN")
        for statement in table.SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
    # Closed by now, so its log is written back and gone: a rename would leave it behind under the old name.
    draft.replace(path)


def _make_private(path: Path) -> None:
    # SQLite makes side files with the mode of the file; what lies there already may have another.
    for suffix in ("", *_SIDE_FILES):
        with suppress(FileNotFoundError):
            file = path.with_name(path.name + suffix)
            if stat.S_IMODE(file.lstat().st_mode) != FILE_MODE:
                file.chmod(FILE_MODE)


def _connect(path: Path, options: FileOptions) -> sqlite3.Connection:
    # Never `rwc`: a file that has vanished since it was looked at must not come back empty.
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, timeout=options.busy_timeout_seconds, isolation_level=None
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {options.synchronous.name}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
        # The file may be damaged or hostile: what SQLite advises then ("Defense Against The Dark Arts").
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        if options.max_bytes is not None:
            connection.execute(f"PRAGMA max_page_count = {max(options.max_bytes // PAGE_BYTES, 1)}")
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        # The check reads all of the file: a large one would hold up the start.
        if pages * PAGE_BYTES <= CHECKED_AT_OPENING_BYTES:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise JournalError(
                    f"The journal {path} is damaged: move it, its -wal and its -shm away, then start again."
                )
        # Proves that it can be written, and waits for whoever holds it.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except BaseException:
        connection.close()
        raise
    return connection
