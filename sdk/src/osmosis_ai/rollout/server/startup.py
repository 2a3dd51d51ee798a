"""What must be there before a server serves: its key, settings, journal, socket and folder for traces.

What cannot be is a ``ServeError`` of one sentence, that says what to do.
"""

import asyncio
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from osmosis_ai.rollout.core.files import FOLDER_MODE, make_folder
from osmosis_ai.rollout.core.settings import DEFAULT_JOURNAL, JOURNAL_OFF, LogFormat, RolloutSettings
from osmosis_ai.rollout.core.text import sendable_key
from osmosis_ai.rollout.core.trace.folder import trace_folder
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError
from osmosis_ai.rollout.journal import JournalError
from osmosis_ai.rollout.journal.place import journal_at
from osmosis_ai.rollout.server.api_key import generate_api_key
from osmosis_ai.rollout.wire.listening import listen

API_KEY_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_API_KEY"
RELOAD_DRAIN_SECONDS = 2.0


class ServeError(CLIError):
    """The server cannot be started as asked; the message says why and what to do."""


class ServeUsageError(ServeError, UsageError):
    """It is asked for what cannot be, or for two things that contradict each other."""


@dataclass(frozen=True)
class Key:
    """``value``, or none, and what the banner shows of it; ``is_new`` where it was made here, for this start."""

    value: str | None
    shown: str
    is_new: bool = False


def choose_key(settings: RolloutSettings, api_key: str | None, local_debug: bool) -> Key:
    """The key as given, the setting's, or else a new one that is shown once; none with ``local_debug``."""
    if local_debug:
        return Key(None, "(disabled - local debug)")
    if api_key is not None:
        if not api_key.strip():
            raise ServeUsageError("The API key is empty: give one, or leave it out to have one generated.")
        try:
            return Key(sendable_key(api_key, "The API key (--server-key)"), "(provided)")
        except ValueError as error:
            raise ServeUsageError(f"{error}.") from error
    if settings.server.api_key is not None:
        return Key(settings.server.api_key.get_secret_value(), f"(provided by {API_KEY_VARIABLE})")
    generated = generate_api_key()
    return Key(generated, generated, is_new=True)


def settings_for(
    settings: RolloutSettings, key: Key, journal: str | None, reload: bool, log_format: str | None
) -> RolloutSettings:
    """``settings`` with what the call names, a journal unless one is set, and a short drain where it reloads."""
    changes: dict[str, Any] = {"api_key": SecretStr(key.value) if key.value is not None else None}
    if journal is not None:
        changes["journal"] = journal
    elif "journal" not in settings.server.model_fields_set:
        changes["journal"] = DEFAULT_JOURNAL
    if log_format is not None:
        changes["log_format"] = LogFormat(log_format)
    if reload:
        changes["drain_seconds"] = min(settings.server.drain_seconds, RELOAD_DRAIN_SECONDS)
    return settings.model_copy(update={"server": settings.server.model_copy(update=changes)})


def require_usable_journal(where: str) -> None:
    """Open the journal at ``where`` and close it again."""
    if where == JOURNAL_OFF:
        return

    async def open_and_close() -> None:
        async with journal_at(where):
            pass

    try:
        asyncio.run(open_and_close())
    except JournalError as error:
        raise ServeError(str(error)) from error


def inherit(fd: int) -> socket.socket:
    """The listening socket that a parent left at ``fd``."""
    try:
        return socket.socket(fileno=fd)
    except (OSError, ValueError) as error:
        raise ServeError(f"Descriptor {fd} cannot be served on: give the number of an inherited socket.") from error


def bind(host: str, port: int, chosen_with: str = "--host and --port") -> socket.socket:
    """A socket that listens on ``host`` and ``port``, which are chosen with what the error names."""
    try:
        return listen(host, port)
    except (OSError, UnicodeError) as error:
        raise ServeError(
            f"Cannot listen on {host}:{port} ({_reason(error)}): choose another address with {chosen_with}."
        ) from error


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "no host name"
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)


def new_trace_folder(debug_dir: str) -> str:
    """Make the folder of this start below ``debug_dir``, which no other server has."""
    try:
        make_folder(debug_dir)
        while True:
            folder = trace_folder(debug_dir)
            with suppress(FileExistsError):  # another server has started in between
                folder.mkdir(FOLDER_MODE)
                return str(folder)
    except FileExistsError:
        raise ServeError(f"Traces cannot be written to {debug_dir}: it is not a folder.") from None
    except OSError as error:
        raise ServeError(f"Traces cannot be written to {debug_dir}: {error.strerror}.") from None
