"""What asyncpg and PostgreSQL report, in the user's terms: one sentence, without user name, password or statement."""

import os
import socket
import ssl

from osmosis_ai.rollout.journal.errors import JournalError
from osmosis_ai.rollout.journal.postgres.address import Address

_START = "The journal at {address} "
_CANNOT_ANSWER = _START + "does not answer ({reason}): start the database, or correct host and port."
_REFUSES_TLS = _START + "refuses TLS ({reason}): correct sslmode and sslrootcert."
_SENTENCES = {
    "28": _START + "refuses this user: correct the user's name, or the password in PGPASSFILE or PGPASSWORD.",
    "3D": _START + "has no such database: create it, or name another in the URL.",
    "42501": _START + "denies what is needed: grant the user the rights of docs/many-machines.md.",
    "42P01": _START + "lacks a table, or hides it from this user: grant the rights of docs/many-machines.md.",
    "25006": _START + "is read-only, a standby perhaps: name the primary, or add target_session_attrs=read-write.",
    "53": _START + "is short of something ({reason}): free disk space or connections of the database.",
    "57": _START + "is stopping or starting ({reason}): wait for it, or start it.",
    "08": _CANNOT_ANSWER,
}
_OTHER_SENTENCE = _START + "failed ({reason}): see the log of the database, then try again."
_OF_THE_DATABASE = ("25", "28", "3D", "42501", "42P01", "53", "57")
"""SQLSTATEs that say nothing of what was to be written: another write would fare no better."""
_UNCLEAR_STATES = ("08", "57P")
"""SQLSTATEs of a connection that ends: what was asked may have been done."""


def journal_error(address: Address, error: BaseException) -> JournalError:
    """``error`` in the user's terms; a ``JournalError`` stays as it is."""
    if isinstance(error, JournalError):
        return error
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        sentence = next((it for length in (5, 2) if (it := _SENTENCES.get(state[:length]))), _OTHER_SENTENCE)
        # The class, not the message: a message may quote values.
        return JournalError(sentence.format(address=address, reason=f"{type(error).__name__}, SQLSTATE {state}"))
    if isinstance(error, TimeoutError):
        return JournalError(_CANNOT_ANSWER.format(address=address, reason="no answer in time"))
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or type(error).__name__
        return JournalError(_REFUSES_TLS.format(address=address, reason=reason))
    if type(error) is ConnectionError:  # asyncpg's own
        if "rejected SSL" in str(error):
            return JournalError(_REFUSES_TLS.format(address=address, reason="it speaks none"))
        return JournalError(_CANNOT_ANSWER.format(address=address, reason="it closes the connection"))
    if isinstance(error, socket.gaierror):
        return JournalError(_CANNOT_ANSWER.format(address=address, reason="no such host"))
    if isinstance(error, OSError):
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else type(error).__name__
        return JournalError(_CANNOT_ANSWER.format(address=address, reason=reason))
    is_of_asyncpg = type(error).__module__.startswith("asyncpg.") and not is_definite(error)
    sentence = _CANNOT_ANSWER if is_of_asyncpg else _OTHER_SENTENCE  # what asyncpg says of a connection that broke off
    return JournalError(sentence.format(address=address, reason=type(error).__name__))


def is_definite(error: BaseException) -> bool:
    """Whether ``error`` says that what was asked was not done, and not only that nobody knows."""
    state = getattr(error, "sqlstate", None)
    # asyncpg raises errors of its own without a state for arguments that it cannot send.
    if isinstance(state, str):
        return not state.startswith(_UNCLEAR_STATES)
    return isinstance(error, ValueError | TypeError | OverflowError)


def is_of_the_database(error: BaseException) -> bool:
    """Whether ``error`` would meet any write, whatever it says: no connection left, no room, a right that is gone."""
    state = getattr(error, "sqlstate", None)
    return state.startswith(_OF_THE_DATABASE) if isinstance(state, str) else not is_definite(error)
