"""Taking secrets out of text that is about to be logged: those that are known, and what looks like one."""

import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

HIDDEN = "***"
MAX_HIDDEN = 256
MIN_SECRET_LENGTH = 6
MAX_TEXT_LENGTH = 16_000


@dataclass(frozen=True, slots=True)
class LogContext:
    """The rollout a task works for; ``secret`` is its callback key."""

    rollout_id: str
    secret: str | None = field(default=None, repr=False)


LOG_CONTEXT: ContextVar[LogContext | None] = ContextVar("LOG_CONTEXT", default=None)

_hidden: dict[str, None] = {}


class _Pattern(NamedTuple):
    """What a secret looks like; only looked for in a text that has one of ``hints``, in lower case."""

    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str


_SHAPES = ("sk", "pk", "rk", "osm", "ghp", "gho", "ghu", "ghs", "ghr", "hf", "xoxa", "xoxb", "xoxp")
_PATTERNS = (
    # Authorization: Bearer abc; Bearer abc
    _Pattern(("bearer", "basic"), re.compile(r"(?i)\b(bearer|basic)(\s+|%20)[^\s\"',;<>]+"), rf"\1\2{HIDDEN}"),
    _Pattern(
        ("authorization",),
        re.compile(r"(?i)(\b(?:proxy-)?authorization[\"']?\s*[:=]\s*b?[\"']?)(?!bearer\b|basic\b)[^\s\"',;]+"),
        rf"\1{HIDDEN}",
    ),
    # api_key=abc, "api_key": "abc", X-API-Key: abc, ?token=abc, password='abc'
    _Pattern(
        ("key", "secret", "passw", "token"),
        re.compile(
            r"(?i)(\b[\w-]{0,40}(?:api[_-]?key|access[_-]?key|secret|passw(?:or)?d|(?<!max_)(?<!max-)token)"
            r"\\?[\"']?\s*(?:[=:]|%3D)\s*b?\\?[\"']?)(?![\s\"'{\[(])[^\s\"'\\,;&<>)}\]]+"
        ),
        rf"\1{HIDDEN}",
    ),
    # scheme://user:password@host
    _Pattern(("@",), re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,20}://)[^\s/@\"']{1,500}@"), rf"\1{HIDDEN}@"),
    # keys by their shape: OpenAI and its like, the server's own, GitHub and others; AWS; JWT
    _Pattern(
        tuple(shape + joint for shape in _SHAPES for joint in "-_"),
        re.compile(rf"\b(?:{'|'.join(_SHAPES)})[-_][A-Za-z0-9_-]{{16,}}"),
        HIDDEN,
    ),
    _Pattern(("akia",), re.compile(r"\bAKIA[0-9A-Z]{16}\b"), HIDDEN),
    _Pattern(("eyj",), re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), HIDDEN),
)


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
    lowered = text.lower()
    for hints, pattern, replacement in _PATTERNS:
        if any(hint in lowered for hint in hints):
            text = pattern.sub(replacement, text)
    return text[:MAX_TEXT_LENGTH]
