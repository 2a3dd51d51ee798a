"""A journal's file: how it is opened (what is refused, what is made, with which modes), and whether it is still sound.

Invariants: a file that is not a journal is never written to, nor is anything made beside it; a journal appears under
its name complete or not at all; no ``-wal`` is ever deleted, as it may hold what is owed; the file, its ``-wal`` and
its ``-shm`` can be read by their user alone. Beside it lies ``<name>.owners/`` with a file for each owner that lives
(see ``owner``) and ``opening``, locked while somebody opens.

While it is open, a name is only a name: what was promised goes on through the open connection, wherever its files have
been moved, and even if they were removed. Nothing new is promised unless all three can be found where they belong:

    moved away, or not to be seen    results are recorded in the moved file; no rollout is accepted until it is back
    -wal or -shm removed             each commit is written into the main file at once, which stands for itself
    removed                          the same; nobody can open it again, so nothing contradicts what is delivered
    damaged                          results are recorded as long as SQLite can; no rollout is accepted
"""

import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from osmosis_ai.rollout.core.files import FILE_MODE, make_folder
from osmosis_ai.rollout.core.settings import Synchronous
from osmosis_ai.rollout.core.shortage import can_open_a_file
from osmosis_ai.rollout.journal import schema
from osmosis_ai.rollout.journal.anchor import Anchor, drop_anchor, take_anchor
from osmosis_ai.rollout.journal.clock import Clock, Timeline
from osmosis_ai.rollout.journal.errors import JournalError, NoJournalError
from osmosis_ai.rollout.journal.explain import damaged, is_busy, is_damage, journal_error
from osmosis_ai.rollout.journal.occupancy import is_open_elsewhere, owners_directory, require_nobody
from osmosis_ai.rollout.journal.owner import Owner, is_locked, is_token, lock, sweep

APPLICATION_ID = 0x6F736A6C
SCHEMA_VERSION = 1
PAGE_BYTES = 8192
WAL_CHECKPOINT_PAGES = 2048
WAL_KEPT_BYTES = 32 * 1024 * 1024
CHECKED_AT_OPENING_BYTES = 64 * 1024 * 1024
MISSING_SECONDS = 10.0
"""For how long an owner's file must be missing, where no other proof of life can be had; it is put back within one."""
_LOCK_POLL_SECONDS = 0.005
_SIDE_FILES = ("-wal", "-shm", "-journal")
_IN_USE = ("", "-wal", "-shm")
_WAL_HEADER_BYTES = 32


@dataclass(frozen=True, slots=True)
class FileOptions:
    synchronous: Synchronous
    busy_timeout_seconds: float
    max_bytes: int | None
    reserve_bytes: int
    create: bool


@dataclass(eq=False, slots=True)
class OpenFile:
    """A journal's file while it is open, with the owner that opened it."""

    path: Path
    connection: sqlite3.Connection
    owner: Owner
    anchor: Anchor
    timeline: Timeline
    options: FileOptions
    damage: JournalError | None = None
    """Once met it stays: what else is damaged is not known."""
    unreachable: JournalError | None = None
    """What stood in the way when another process's view was last taken (rights, the disk), until it stands no more."""
    problem: JournalError | None = None
    """Why nothing new can be promised, as of the last look."""
    _identities: list[tuple[str, int, int]] = field(default_factory=list)
    _missing_since: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for suffix in _IN_USE:
            file = self.path.with_name(self.path.name + suffix)
            status = file.stat()
            self._identities.append((str(file), status.st_dev, status.st_ino))

    def look(self) -> JournalError | None:
        """See whether anything new can be promised; cheap enough for each commit."""
        self.problem = self.damage or self._displacement() or self.unreachable
        return self.problem

    def _displacement(self) -> JournalError | None:
        for name, device, inode in self._identities:
            try:
                status = os.stat(name)  # noqa: PTH116 - at each commit, and half as dear as Path.stat
            except (FileNotFoundError, NotADirectoryError):
                return self._lost(name)
            except OSError as error:  # the disk, the mount or the rights: not known, so neither gone nor in place
                return journal_error(self.path, error)
            if status.st_ino != inode or status.st_dev != device:
                return self._lost(name)
        return None

    def _lost(self, name: str) -> JournalError:
        suffix = name.removeprefix(str(self.path))
        if suffix:
            return JournalError(f"The journal {self.path} lost its {suffix} while in use: restart the server.")
        return JournalError(
            f"The journal {self.path} was moved or removed while in use: put it back, or restart the server."
        )

    def require_sound(self) -> None:
        """Raise ``JournalError`` if nothing new can be promised here."""
        if self.problem is not None:
            raise self.problem

    def secure(self) -> None:
        """Write all commits into the main file, which then needs no ``-wal``. Raises ``JournalError``."""
        blocked, pages, written = self.connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        if blocked or pages != written:
            raise JournalError(f"The journal {self.path} cannot be brought up to date while others read it: end them.")

    def probe(self) -> None:
        """Read what another process would read. Raises ``sqlite3.Error`` or ``OSError``."""
        if self.path.stat().st_size < PAGE_BYTES:
            raise damaged(self.path)
        with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True, timeout=0)) as other:
            try:
                schema.probe(other)
            except sqlite3.OperationalError as error:
                # Out of descriptors nothing can be opened, which says nothing of this file.
                if not is_busy(error) and can_open_a_file():
                    raise

    def note_error(self, error: Exception) -> JournalError:
        """``error`` in the user's terms; damage is remembered."""
        explained = journal_error(self.path, error)
        if is_damage(error):
            self.damage = self.problem = explained
        return explained

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
        """Whether ``owner`` lives, this one or another; in doubt it does."""
        held = self.anchor.is_held(owner)
        locked = is_locked(owners_directory(self.path), owner)
        if held or locked:
            self._missing_since.pop(owner, None)
            return True
        if held is not None or locked is False or not is_token(owner):
            return False
        now = time.monotonic()
        return now - self._missing_since.setdefault(owner, now) < MISSING_SECONDS

    def sweep(self) -> None:
        """Remove what dead owners left."""
        sweep(owners_directory(self.path))

    def close(self) -> None:
        try:
            self.connection.close()
        finally:
            self.anchor.let_go(self.owner.token)
            try:
                self.owner.release()
            finally:
                drop_anchor(self.anchor)


def open_file(path: Path, options: FileOptions, clock: Clock) -> OpenFile:
    """Open the journal at ``path``, made if absent, as a new owner.

    Raises ``JournalError``, ``OSError`` or ``sqlite3.Error``; see ``explain.journal_error``.
    """
    if sys.platform == "win32":
        raise JournalError("The journal needs POSIX file locks, which Windows lacks: switch the journal off.")
    if options.create:
        make_folder(path.parent)
    # Links on the way are resolved; a link in the last place is refused by `_exists_as_journal`.
    path = path.parent.resolve() / path.name
    if not _exists_as_journal(path) and not options.create:
        raise NoJournalError(f"There is no journal at {path}: name the one that the server uses.")
    make_folder(owners_directory(path))
    with _alone(path, options.busy_timeout_seconds):
        if not _exists_as_journal(path):
            create_file(path)
        _make_private(path)
        others = _require_whole(path, options.busy_timeout_seconds)
        anchor = take_anchor(path)
        try:
            connection = _connect(path, options)
            try:
                sweep(owners_directory(path))
                timeline = schema.begin_timeline(connection, clock, shared=others, serves=options.create)
                file = OpenFile(path, connection, Owner(owners_directory(path)), anchor, timeline, options)
                anchor.hold(file.owner.token)
                return file
            except BaseException:
                connection.close()
                raise
        except BaseException:
            drop_anchor(anchor)
            raise


def _exists_as_journal(path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        _require_no_log(path)
        return False
    if not stat.S_ISREG(status.st_mode):
        raise JournalError(f"The journal {path} is not a regular file (links are refused too): name a file.")
    # SQLite names the log after the path: two names of one file would have two logs.
    if status.st_nlink > 1:
        raise JournalError(f"The journal {path} has a second name (a hard link): remove one of the two.")
    if status.st_size == 0:
        _require_no_log(path)
        return False
    # Without the -wal: another program's database is not to be touched, and ours says what it is from the first on.
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        application_id = None
    if application_id != APPLICATION_ID:
        if owners_directory(path).is_dir():
            raise damaged(path)
        raise JournalError(f"The file {path} is not a rollout journal: move it away, or name another path.")
    return True


def _require_no_log(path: Path) -> None:
    """SQLite deletes the log of a file that is absent or empty; it may hold all that is owed."""
    with suppress(FileNotFoundError):
        if path.with_name(path.name + "-wal").stat().st_size > _WAL_HEADER_BYTES:
            raise JournalError(
                f"The journal {path} is gone or empty, but its -wal is there: put it back, or bring out what it owes "
                f"with 'osmosis journal salvage {path} -o NEW'."
            )


def _require_whole(path: Path, timeout_seconds: float) -> bool:
    """Whether others have it open; a new log beside the one that they use would damage the file."""
    deadline = time.monotonic() + timeout_seconds
    while others := is_open_elsewhere(path):
        missing = [suffix for suffix in _IN_USE if not path.with_name(path.name + suffix).exists()]
        if not missing:
            break
        if time.monotonic() > deadline:  # who closes it removes them, and is gone a moment later
            raise JournalError(f"The journal {path} lost its {missing[0]} while in use: restart the server.")
        time.sleep(_LOCK_POLL_SECONDS)
    return others


def rename(path: Path, to: Path, timeout_seconds: float) -> None:
    """Give the journal another name, if nobody has it open, and while nobody can. Raises ``JournalError``: one has."""
    with _alone(path, timeout_seconds):
        require_nobody(path)
        path.rename(to)


@contextmanager
def _alone(path: Path, timeout_seconds: float) -> Iterator[None]:
    """One opener at a time, so that two processes that start together do not both make the file."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
    # The directory itself is locked, for cleaners that remove old files; the file is for SDKs that know only that.
    descriptors = [os.open(owners_directory(path), flags)]
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptors.append(os.open(owners_directory(path) / "opening", flags, FILE_MODE))
    try:
        deadline = time.monotonic() + timeout_seconds
        for descriptor in descriptors:
            while not lock(descriptor, exclusive=True):
                if time.monotonic() > deadline:
                    raise JournalError(
                        f"The journal {path} is being opened by another process: end it, then try again."
                    )
                time.sleep(_LOCK_POLL_SECONDS)
        yield
    finally:
        # The lock file stays: if it were removed, two openers could each hold a lock on a file of that name.
        for descriptor in descriptors:
            os.close(descriptor)


def create_file(path: Path) -> None:
    """Make an empty journal at ``path``, whole or not at all. Raises ``OSError`` or ``sqlite3.Error``."""
    draft = path.with_name(path.name + ".new")
    # What is left of a half-made one; a rollback journal, which a journal never has, would be applied to the new file.
    for stale in (draft.name, *(draft.name + suffix for suffix in _SIDE_FILES), path.name + "-journal"):
        path.with_name(stale).unlink(missing_ok=True)
    # Not left to SQLite, which would make it readable for all.
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE))
    with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("BEGIN")
        for statement in schema.SCHEMA:
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
        (version,) = connection.execute("PRAGMA user_version").fetchone()  # with what the -wal says
        if version != SCHEMA_VERSION:
            raise JournalError(
                f"The journal {path} has schema {version}, which this SDK does not know (it writes {SCHEMA_VERSION}): "
                "use the SDK that wrote it, or name another path."
            )
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
                raise damaged(path)
    except BaseException:
        connection.close()
        raise
    return connection
