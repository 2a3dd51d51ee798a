"""Log lines: one line an event, as text or as JSON, with the rollout they concern and without secrets.

Whatever a line says (a message, an exception, a field) is foreign text: control characters are escaped, so that it can
neither forge another line nor drive a terminal, and what looks like a secret is replaced by ``***``. That is the last
defence; code that logs keeps secrets out itself.
"""

import json
import logging
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.core.settings import LogFormat
from osmosis_ai.rollout.core.text import described, escaped, text_of
from osmosis_ai.rollout.observe.redaction import LOG_CONTEXT, MIN_SECRET_LENGTH, redacted

FIELDS = "osmosis_fields"
"""The name under which ``extra`` carries a dataclass or mapping whose fields become fields of a JSON line."""
MAX_FRAMES = 8


_encode = json.JSONEncoder(ensure_ascii=True, default=str, allow_nan=False).encode


class _Formatter(logging.Formatter, ABC):
    def format(self, record: logging.LogRecord) -> str:
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001 - a wrong format string must not lose the line
            message = f"{record.msg!s} (unformatted: {type(error).__name__})"
        return self.line(record, message)

    @abstractmethod
    def line(self, record: logging.LogRecord, message: str) -> str:
        """The whole line."""


class TextFormatter(_Formatter):
    """``2026-11-25T09:48:02.123Z INFO    osmosis_ai.rollout.server.service: message [rollout_id]``.

    The rollout is named where the message does not name it. An exception follows as its type, its text and where it
    came from; the whole traceback is in the JSON format.
    """

    def line(self, record: logging.LogRecord, message: str) -> str:
        parts = [_time_of(record), f"{record.levelname:<7}", f"{record.name}: {message}"]
        rollout_id = rollout_id_of(record)
        if rollout_id is not None and ascii(rollout_id)[1:-1] not in message:
            parts.append(f"[rollout {rollout_id}]")
        if (error := _exception_of(record)) is not None:
            parts.append(f"({_short(error)})")
        elif record.exc_text:
            parts.append(f"({record.exc_text})")
        return escaped(redacted(" ".join(parts)))


class JsonFormatter(_Formatter):
    """One JSON object a line: ``time`` (RFC 3339), ``level``, ``logger``, ``message``; where there is one
    ``rollout_id``; the fields of the event; and ``error`` and ``traceback``."""

    def line(self, record: logging.LogRecord, message: str) -> str:
        fields = {"message": message}
        if (rollout_id := rollout_id_of(record)) is not None:
            fields["rollout_id"] = rollout_id
        if (error := _exception_of(record)) is not None:
            fields["error"] = _short(error)
            fields["traceback"] = "".join(traceback.format_exception(error))
        elif record.exc_text:
            fields["traceback"] = record.exc_text
        ours = {"time": _time_of(record), "level": record.levelname.lower(), "logger": record.name}
        return _encode(ours | _clean({**fields, **_fields_of(record), **fields}) | ours)


def rollout_id_of(record: logging.LogRecord) -> str | None:
    """The rollout a record concerns: as its ``extra`` says, or else the one its task works for."""
    explicit = getattr(record, "rollout_id", None)
    if isinstance(explicit, str):
        return explicit
    context = LOG_CONTEXT.get()
    return context.rollout_id if context is not None else None


def formatter(log_format: str) -> logging.Formatter:
    """The formatter of a ``LogFormat``."""
    return JsonFormatter() if LogFormat(log_format) is LogFormat.JSON else TextFormatter()


def log_config(log_format: LogFormat) -> dict[str, Any]:
    """uvicorn's ``log_config`` (JSON for ``logging.config.dictConfig``) for lines in our format, on stderr."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"osmosis": {"()": f"{__name__}.formatter", "log_format": log_format.value}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "osmosis", "stream": "ext://sys.stderr"}
        },
        "loggers": {
            "uvicorn": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
            "uvicorn.error": {"level": "INFO"},
            "uvicorn.access": {"level": "INFO"},
        },
    }


def use_format(log_format: LogFormat) -> None:
    """Write uvicorn's lines in our format, where uvicorn's own handlers are installed or will be.

    Under ``uvicorn module:app`` they are by the time the app is made; under ``uvicorn.run`` they are made later, from
    uvicorn's default configuration. (It is not imported for the sake of two lines of text before the app starts.)
    """
    ours = formatter(log_format)
    for name in ("uvicorn", "uvicorn.access"):
        for handler in logging.getLogger(name).handlers:
            if _is_uvicorns(handler):
                handler.setFormatter(ours)
    if "uvicorn.config" in sys.modules or (log_format is LogFormat.JSON and find_spec("uvicorn") is not None):
        import uvicorn.config

        uvicorn.config.LOGGING_CONFIG["formatters"] = {
            name: {"()": f"{__name__}.formatter", "log_format": log_format} for name in ("default", "access")
        }


def _is_uvicorns(handler: logging.Handler) -> bool:
    return type(handler.formatter).__module__.partition(".")[0] in ("uvicorn", __name__.partition(".")[0])


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _exception_of(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if isinstance(record.exc_info, tuple) else None


def _short(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    where = " < ".join(f"{_place(frame.filename)}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return described(error, text_of(error, "")) + (f"; at {where}" if where else "")


def _place(filename: str) -> str:
    return "/".join(Path(filename).parts[-2:])


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, FIELDS, None)
    if is_dataclass(fields) and not isinstance(fields, type):
        return asdict(fields)
    return dict(fields) if isinstance(fields, Mapping) else {}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) < MIN_SECRET_LENGTH else redacted(value)
    if isinstance(value, Mapping):
        return {str(name): _clean(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return value
