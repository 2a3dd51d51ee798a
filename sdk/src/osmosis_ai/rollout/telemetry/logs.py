"""Log lines: one line an event, as text or as JSON, with the rollout they concern and without secrets.

Whatever a line says (a message, an exception, a field) is foreign text: control characters are escaped, so that it can
neither forge another line nor drive a terminal, and what looks like a secret is replaced by ``***``. That is the last
defence; code that logs keeps secrets out itself.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from osmosis_ai.rollout._compat import UVICORN_AVAILABLE
from osmosis_ai.rollout.config.settings import LogFormat

HIDDEN = "***"
FIELDS = "osmosis_fields"
"""The name under which ``extra`` carries a dataclass or mapping whose fields become fields of a JSON line."""
MAX_HIDDEN = 256
MIN_SECRET_LENGTH = 6
MAX_FRAMES = 8
MAX_TEXT_LENGTH = 16_000
"""Of a text line, or of one string in a JSON line."""


@dataclass(frozen=True, slots=True)
class LogContext:
    """The rollout a task works for; ``secret`` is its callback key."""

    rollout_id: str
    secret: str | None = field(default=None, repr=False)


LOG_CONTEXT: ContextVar[LogContext | None] = ContextVar("LOG_CONTEXT", default=None)

_hidden: dict[str, None] = {}

_PATTERNS = (
    # Authorization: Bearer abc; Bearer abc
    (re.compile(r"(?i)\b(bearer|basic)(\s+|%20)[^\s\"',;<>]+"), rf"\1\2{HIDDEN}"),
    (
        re.compile(r"(?i)(\b(?:proxy-)?authorization[\"']?\s*[:=]\s*b?[\"']?)(?!bearer\b|basic\b)[^\s\"',;]+"),
        rf"\1{HIDDEN}",
    ),
    # api_key=abc, "api_key": "abc", X-API-Key: abc, ?token=abc, password='abc'
    (
        re.compile(
            r"(?i)(\b[\w-]{0,40}(?:api[_-]?key|access[_-]?key|secret|passw(?:or)?d|(?<!max_)(?<!max-)token)"
            r"\\?[\"']?\s*(?:[=:]|%3D)\s*b?\\?[\"']?)(?![\s\"'{\[(])[^\s\"'\\,;&<>)}\]]+"
        ),
        rf"\1{HIDDEN}",
    ),
    # scheme://user:password@host
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,20}://)[^\s/@\"']{1,500}@"), rf"\1{HIDDEN}@"),
    # keys by their shape: OpenAI and its like, the server's own, GitHub, AWS, JWT
    (re.compile(r"\b(?:sk|pk|rk|osm|osmosis|gh[pousr]|hf|xox[abp])[-_][A-Za-z0-9_-]{16,}"), HIDDEN),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b"), HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), HIDDEN),
)

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def hide(*secrets: str) -> None:
    """Replace each of ``secrets`` wherever it turns up in a log line; the last ``MAX_HIDDEN`` are remembered."""
    for secret in secrets:
        if len(secret) >= MIN_SECRET_LENGTH:
            _hidden[secret] = None
        while len(_hidden) > MAX_HIDDEN:
            del _hidden[next(iter(_hidden))]


def redacted(text: str) -> str:
    """``text`` without secrets, those that are known and what looks like one, cut to ``MAX_TEXT_LENGTH``."""
    text = text[: 2 * MAX_TEXT_LENGTH]  # a secret cut in two here is beyond the cut below
    for secret in list(_hidden):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    context = LOG_CONTEXT.get()
    if context is not None and context.secret and len(context.secret) >= MIN_SECRET_LENGTH:
        text = text.replace(context.secret, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text[:MAX_TEXT_LENGTH]


def one_line(text: str) -> str:
    """``text`` with control characters, line separators and direction marks written as escapes."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001 - a wrong format string must not lose the line
            message = f"{record.msg!s} (unformatted: {type(error).__name__})"
        return self.line(record, message)

    def line(self, record: logging.LogRecord, message: str) -> str:
        """The whole line."""
        raise NotImplementedError


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
        return one_line(redacted(" ".join(parts)))


class JsonFormatter(_Formatter):
    """One JSON object a line: ``time`` (RFC 3339), ``level``, ``logger``, ``message``; where there is one
    ``rollout_id``; the fields of the event; and ``error`` and ``traceback``."""

    def line(self, record: logging.LogRecord, message: str) -> str:
        fields: dict[str, Any] = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        rollout_id = rollout_id_of(record)
        if rollout_id is not None:
            fields["rollout_id"] = rollout_id
        fields = _fields_of(record) | fields
        fields = {name: fields.pop(name) for name in ("time", "level")} | fields
        if (error := _exception_of(record)) is not None:
            fields["error"] = _short(error)
            fields["traceback"] = "".join(traceback.format_exception(error))
        elif record.exc_text:
            fields["traceback"] = record.exc_text
        return json.dumps(_clean(fields), ensure_ascii=True, default=str, allow_nan=False)


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
    if UVICORN_AVAILABLE and (log_format is LogFormat.JSON or "uvicorn.config" in sys.modules):
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
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an agent's exception may have a broken __str__
        text = ""
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    where = " < ".join(f"{_place(frame.filename)}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    name = type(error).__name__
    return (f"{name}: {text}" if text else name) + (f"; at {where}" if where else "")


def _place(filename: str) -> str:
    return "/".join(Path(filename).parts[-2:])


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, FIELDS, None)
    if is_dataclass(fields) and not isinstance(fields, type):
        return asdict(fields)
    return dict(fields) if isinstance(fields, Mapping) else {}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {str(name): _clean(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return value
