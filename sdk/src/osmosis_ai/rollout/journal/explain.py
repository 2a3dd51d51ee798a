"""What SQLite and the operating system report, in the user's terms."""

import os
import sqlite3
from pathlib import Path

from osmosis_ai.rollout.journal.errors import JournalError

_SENTENCES = {
    sqlite3.SQLITE_BUSY: "The journal {path} is locked by another process: end what holds it, then try again.",
    sqlite3.SQLITE_LOCKED: "The journal {path} is locked by another process: end what holds it, then try again.",
    sqlite3.SQLITE_FULL: "The journal {path} cannot grow (disk full, or its size limit reached): free some space.",
    sqlite3.SQLITE_IOERR: "The journal {path} cannot be read or written ({reason}): check the disk and its free space.",
    sqlite3.SQLITE_READONLY: "The journal {path} cannot be written: let this user write to it and its directory.",
    sqlite3.SQLITE_PERM: "The journal {path} cannot be written: let this user write to it and its directory.",
    sqlite3.SQLITE_CANTOPEN: "The journal {path} cannot be opened ({reason}): check that its directory can be written.",
    sqlite3.SQLITE_CORRUPT: "The journal {path} is damaged: move it, its -wal and its -shm away, then start again.",
    sqlite3.SQLITE_NOTADB: "The file {path} is not a rollout journal: move it away, or name another path.",
}
_OTHER_SENTENCE = "The journal {path} failed ({reason}): see the reason, then try again."
_PRIMARY_CODE_MASK = 0xFF


def journal_error(path: Path, error: Exception) -> JournalError:
    """``error`` in the user's terms; a ``JournalError`` stays as it is."""
    if isinstance(error, JournalError):
        return error
    if isinstance(error, OSError):
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        where = error.filename if error.filename is not None else path
        return JournalError(
            f"The journal {path} cannot be used ({reason}: {where}): correct that, or name another path."
        )
    code = getattr(error, "sqlite_errorcode", None)
    sentence = _OTHER_SENTENCE if code is None else _SENTENCES.get(code & _PRIMARY_CODE_MASK, _OTHER_SENTENCE)
    return JournalError(sentence.format(path=path, reason=_reason(error)))


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "text that is not valid Unicode"
    return str(error) if isinstance(error, sqlite3.Error) else type(error).__name__
