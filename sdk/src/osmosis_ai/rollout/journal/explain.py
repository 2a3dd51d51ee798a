"""What SQLite and the operating system report, in the user's terms."""

import os
import sqlite3
from pathlib import Path

from osmosis_ai.rollout.journal.errors import JournalDamagedError, JournalError

_DAMAGED = (
    "The journal {path} is damaged: bring out what it owes with 'osmosis journal salvage {path} -o NEW', then use that."
)
_SENTENCES = {
    sqlite3.SQLITE_BUSY: "The journal {path} is locked by another process: end what holds it, then try again.",
    sqlite3.SQLITE_LOCKED: "The journal {path} is locked by another process: end what holds it, then try again.",
    sqlite3.SQLITE_FULL: "The journal {path} cannot grow (disk full, or its size limit reached): free some space.",
    sqlite3.SQLITE_IOERR: "The journal {path} cannot be read or written ({reason}): check the disk and its free space.",
    sqlite3.SQLITE_READONLY: "The journal {path} cannot be written: let this user write to it and its directory.",
    sqlite3.SQLITE_PERM: "The journal {path} cannot be written: let this user write to it and its directory.",
    sqlite3.SQLITE_CANTOPEN: "The journal {path} cannot be opened ({reason}): check that its directory can be written.",
}
_OTHER_SENTENCE = "The journal {path} failed ({reason}): see the reason, then try again."
_PRIMARY_CODE_MASK = 0xFF


def damaged(path: Path) -> JournalError:
    """What to say of a journal that cannot be read."""
    return JournalDamagedError(_DAMAGED.format(path=path))


def is_busy(error: sqlite3.Error) -> bool:
    """Whether ``error`` says that somebody else holds the file."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE_MASK in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_damage(error: Exception) -> bool:
    """Whether ``error`` says that what was written cannot be read."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_IOERR_SHORT_READ:  # a page is not there: somebody has cut the file or its log
        return True
    damages = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return isinstance(error, JournalDamagedError) or code & _PRIMARY_CODE_MASK in damages


def journal_error(path: Path, error: Exception) -> JournalError:
    """``error`` in the user's terms; a ``JournalError`` stays as it is."""
    if isinstance(error, JournalError):
        return error
    if isinstance(error, PermissionError) and error.filename == str(path):
        return JournalError(_SENTENCES[sqlite3.SQLITE_READONLY].format(path=path))
    if isinstance(error, OSError):
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        where = error.filename if error.filename is not None else path
        return JournalError(
            f"The journal {path} cannot be used ({reason}: {where}): correct that, or name another path."
        )
    if is_damage(error):
        return damaged(path)
    code = getattr(error, "sqlite_errorcode", None)
    sentence = _OTHER_SENTENCE if code is None else _SENTENCES.get(code & _PRIMARY_CODE_MASK, _OTHER_SENTENCE)
    return JournalError(sentence.format(path=path, reason=_reason(error)))


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "text that is not valid Unicode"
    return str(error) if isinstance(error, sqlite3.Error) else type(error).__name__
