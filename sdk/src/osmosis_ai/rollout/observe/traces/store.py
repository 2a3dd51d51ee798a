"""What an index has read of a folder of traces, kept in that folder, so that a second opening reads nothing twice.

``.osmosis-index.sqlite3``: a row a trace file, with what tells whether the file is still that one (size, time of its
change) and the summaries of its rollouts. It is derived and can be removed at any time. It is its owner's alone (0600).

Nothing here fails an opening: a store that cannot be had (a folder that cannot be written, a symbolic link under the
name, another viewer at work on it) is gone without, one that is damaged is made anew, and a row that is damaged is not
known. A process that is killed leaves the last store that was whole; a machine that crashes may leave a damaged one.

A folder may come from somebody else, and SQLite trusts its files: a journal can name any file, which is then removed,
and a schema or a tree of pages can make a few kilobytes endless. So SQLite opens only what this module may have
written, and what it does for one call is bounded.
"""

import os
import sqlite3
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields
from functools import cache
from itertools import count
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_type_hints

from pydantic_core import to_json

from osmosis_ai.rollout.core.files import NotRegularError, open_regular
from osmosis_ai.rollout.observe.traces.summary import Summary

if TYPE_CHECKING:
    from pydantic import TypeAdapter

STORE_NAME = ".osmosis-index.sqlite3"
STORE_VERSION = 13
"""Goes up with each change of ``Summary`` or of how it is gathered; a store of another version is made anew."""
BUSY_SECONDS = 0.5
MAX_STORE_BYTES = 1024 * 1024 * 1024
"""What is larger holds more rollouts than a page can show, or is somebody's trap."""
MAX_ROW_BYTES = 64 * 1024 * 1024
_STEPS_AT_ONCE, _MAX_TURNS = 100_000, 1000
"""Of SQLite's machine, for one call: a hundred times what the largest store needs."""
# `file` comes first and is told by the place, `version` and `run` come last and are the index's.
_KEPT = tuple(one.name for one in fields(Summary))[1:-2]
_SHAPE = zlib.crc32(repr((STORE_VERSION, _KEPT)).encode()) & 0x7FFFFFFF
state_of = attrgetter(*_KEPT)
"""All that is known of a rollout but its place, as ``Summary`` takes it behind that."""
# With row ids, as rows come in no order of their paths: kept in that order, each save would move half of them.
_TABLES = [
    "CREATE TABLE files (path BLOB PRIMARY KEY, known BLOB, sum INTEGER)",
    "CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID",
]
_JOURNAL, _OF_WAL = "-journal", ("-wal", "-shm")
_ROLLBACK_FORMAT = b"\x01\x01"
"""At ``_FORMAT_AT`` of a database that is not in WAL mode."""
_FORMAT_AT = 18
_NAMES_ANOTHER = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
"""How a journal ends that names a super-journal, as one of several databases does."""


class Kept(NamedTuple):
    """What is known of one file."""

    size: int
    """In bytes, when it was read."""
    changed: int
    """When it had changed last, in nanoseconds."""
    read: int
    """Offset behind its last whole line."""
    lost: int
    """How many of its lines hold no event."""
    states: list[tuple[Any, ...]]
    """Of its rollouts, as ``state_of`` gives them."""


class Store:
    """The store of one folder. For one thread at a time, whichever it is."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / STORE_NAME
        self._database: sqlite3.Connection | None = None
        self._is_given_up = False
        self._notes: dict[str, str] = {}

    def load(self) -> dict[str, bytes]:
        """What is known, by path as seen from the folder, for ``checked``; nothing without a store. Makes none."""
        if not os.path.lexists(self.path):
            return {}
        return self._tried(self._load) or {}

    def save(self, known: Iterable[tuple[str, Kept]], gone: Iterable[str] = ()) -> None:
        """Keep ``known``, and forget ``gone``, both or neither."""
        self._tried(lambda database: self._save(database, known, gone))

    def note(self, name: str) -> str | None:
        """A word that was kept under ``name``."""
        if not os.path.lexists(self.path):
            return None
        found = self._tried(
            lambda database: database.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        )
        return found[0] if found and isinstance(found[0], str) else None

    def keep_note(self, name: str, value: str) -> None:
        """Keep a word under ``name``: now if there is a store, else once there is one."""
        self._notes[name] = value
        if os.path.lexists(self.path):
            self.save(())

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _tried(self, action: Any) -> Any:
        """What ``action`` gives of the open store; ``None`` without one. A damaged store is made anew, once."""
        for is_last in (False, True):
            if self._is_given_up:
                return None
            try:
                self._check_beside()  # each time, as SQLite looks for them with each lock
                if self._database is None:
                    self._database = self._opened()
                _bound(self._database)
                return action(self._database)
            except sqlite3.OperationalError:  # in use, not writable, no room, endless: all the same tomorrow
                self._give_up()
            except (sqlite3.DatabaseError, ValueError):  # damaged, or of another shape
                self.close()
                if is_last or not self._removed():
                    self._give_up()
            except OSError:
                self._give_up()
        return None

    def _give_up(self) -> None:
        self.close()
        self._is_given_up = True

    def _opened(self) -> sqlite3.Connection:
        self._check_file()
        database = sqlite3.connect(self.path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
        try:
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES)
            _bound(database)
            # Derived data: a killed process leaves it whole, and after a crash of the machine it may be made anew.
            database.execute("PRAGMA synchronous = OFF")
            database.execute("PRAGMA trusted_schema = OFF")
            [(shape,)] = database.execute("PRAGMA user_version")
            made = [sql for (sql,) in database.execute("SELECT sql FROM sqlite_master") if sql is not None]
            if shape == 0 and not made:
                database.executescript(f"BEGIN IMMEDIATE;{';'.join(_TABLES)};PRAGMA user_version = {_SHAPE};COMMIT;")
            elif shape != _SHAPE or made != _TABLES:
                raise ValueError("a store of another version")
        except BaseException:
            database.close()
            raise
        return database

    def _check_file(self) -> None:
        """Make the file if there is none; what is no store raises ``ValueError``."""
        descriptor = open_regular(self.path, os.O_RDWR | os.O_CREAT)  # private from the first moment; follows no link
        try:
            if os.fstat(descriptor).st_size > MAX_STORE_BYTES:
                raise ValueError("larger than a store is")
            if os.pread(descriptor, 2, _FORMAT_AT) not in (b"", _ROLLBACK_FORMAT):
                raise ValueError("no store, or in WAL mode")
        finally:
            os.close(descriptor)

    def _check_beside(self) -> None:
        """What lies beside the file and would lead SQLite astray raises ``ValueError``."""
        if any(os.path.lexists(f"{self.path}{suffix}") for suffix in _OF_WAL):
            raise ValueError("in WAL mode")
        with suppress(FileNotFoundError):
            try:
                descriptor = open_regular(f"{self.path}{_JOURNAL}", os.O_RDONLY)
            except NotRegularError:
                raise ValueError("a journal that is no file") from None
            with os.fdopen(descriptor, "rb") as journal:
                journal.seek(max(0, os.fstat(descriptor).st_size - len(_NAMES_ANOTHER)))
                if journal.read() == _NAMES_ANOTHER:
                    raise ValueError("a journal that names another file")

    def _removed(self) -> bool:
        try:
            for suffix in (_JOURNAL, *_OF_WAL, ""):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _load(self, database: sqlite3.Connection) -> dict[str, bytes]:
        left = self.path.stat().st_size
        known: dict[str, bytes] = {}
        for path, content, total in database.execute("SELECT path, known, sum FROM files"):
            left -= 1 + (len(content) if isinstance(content, bytes) else 0)
            if left < 0:
                raise ValueError("it holds more than it is large: pages are in it many times")
            # SQLite takes any value in any column, and does not notice a bit that fell over within one.
            if isinstance(path, bytes) and isinstance(content, bytes) and total == _sum_of(path, content):
                known[os.fsdecode(path)] = content
        return known

    def _save(self, database: sqlite3.Connection, known: Iterable[tuple[str, Kept]], gone: Iterable[str]) -> None:
        contents = [(os.fsencode(path), to_json(kept)) for path, kept in known]
        rows = [(path, content, _sum_of(path, content)) for path, content in contents]
        database.execute("BEGIN IMMEDIATE")
        try:
            database.executemany("DELETE FROM files WHERE path = ?", [(os.fsencode(path),) for path in gone])
            database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)
            database.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", self._notes.items())
            database.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            raise


def _bound(database: sqlite3.Connection) -> None:
    """Interrupt what takes longer, from here to the next call."""
    turns = count()
    database.set_progress_handler(lambda: next(turns) > _MAX_TURNS, _STEPS_AT_ONCE)


def _sum_of(path: bytes, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(path))


def checked(contents: list[bytes]) -> list[Kept | None]:
    """What they tell: the folder, and the store in it, may come from somebody else; ``None`` of what is no ``Kept``."""
    with suppress(ValueError):
        found = _known().validate_json(b"[%b]" % b",".join(contents))
        if len(found) == len(contents):
            return [Kept(*one) for one in found]
    half = len(contents) // 2
    return [*checked(contents[:half]), *checked(contents[half:])] if half else [None]


@cache
def _known() -> "TypeAdapter[list[tuple[Any, ...]]]":
    # A tenth of a second, which a first opening and its helpers do without.
    from pydantic import FailFast, TypeAdapter

    hints = get_type_hints(Summary)
    state: Any = tuple[tuple(hints[name] for name in _KEPT)]  # type: ignore[misc]
    # One that is wrong is enough: millions would each be told.
    kept: Any = tuple[int, int, int, int, Annotated[list[state], FailFast()]]
    return TypeAdapter(list[kept])
