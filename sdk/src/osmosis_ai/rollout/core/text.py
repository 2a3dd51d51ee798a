"""Text that somebody else wrote (a model, a trainer, a dataset, an exception), made fit for where it goes.

==================  =========================================================================
for a terminal      `strip_control` keeps lines, `one_line` makes one of them,
                    `printable` leaves only what can be seen, `shortened` is `printable`, cut
for a log line      `redacted`, then `escaped`: nothing is lost but secrets
for an error        `excerpt` of what was received, `described` for an exception, `bare_url`
for the wire        `encodable`
for a place         `cut` to so many characters and a mark, `fitted` to so many with the mark,
                    `both_ends` too, without the middle
==================  =========================================================================

All are total: they raise for no text, surrogates and control characters included. All but `cut`, `excerpt` and
`shortened`, which may add a mark, give their own answer back unchanged.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

MAX_SHOWN_CHARACTERS = 300
MAX_EXCERPT_CHARACTERS = 500
MAX_REDACTED_CHARACTERS = 16_000
HIDDEN = "***"
UNREADABLE = "(its text cannot be read)"

# ECMA-48. A sequence that is cut off loses its introducer, and the rest of it is mere text.
CONTROL = re.compile(
    r"""
      (?P<colour>\x1b\[[0-9;:]*m)
    | (?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]                                                # CSI
    | (?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x00-\x08\x0a-\x1f\x7f-\x9f]*(?:\x07|\x1b\\|\x9c)  # OSC, DCS, SOS, PM, APC
    | \x1b[ -/]*[0-~]                                                                 # any other escape
    | [\x00-\x08\x0b-\x1f\x7f-\x9f]                                                   # C0 and C1 but tab, newline
    """,
    re.VERBOSE,
)
# What can forge a line or turn one around: controls, line separators, direction marks; and lone surrogates.
_ESCAPED = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def text_of(value: Any, otherwise: str | None = None) -> str:
    """``str(value)``; where that raises, ``otherwise`` or a placeholder with the type."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        return f"<unprintable {type(value).__name__}>" if otherwise is None else otherwise


def described(error: BaseException, text: str | None = None) -> str:
    """``ValueError: text``, or the type alone where there is none; ``text`` stands in for the error's own."""
    name, text = type(error).__name__, text_of(error) if text is None else text
    return f"{name}: {text}" if text else name


def encodable(text: str, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
    """``text`` with what ``encoding`` lacks (in UTF-8: lone surrogates) replaced, as ``str.encode`` understands it."""
    try:
        encoded = str.encode(text, encoding)
        if type(text) is str:
            return text
    except UnicodeEncodeError:
        encoded = str.encode(text, encoding, errors)
    return encoded.decode(encoding)  # a subclass of str, which may do anything, becomes a str


def strip_control(text: str) -> str:
    """``text`` without terminal control sequences and control characters; newlines and tabs stay.

    For what might otherwise clear the screen, set the title or hide output.
    """
    return CONTROL.sub("", text)


def one_line(text: str) -> str:
    """``text`` without control sequences, with each run of white space as one space and none at the ends."""
    return " ".join(strip_control(text).split())


def printable(text: str, encoding: str = "utf-8") -> str:
    """``text`` on one line, without control sequences or invisible characters, in what ``encoding`` can write."""
    seen = (each for each in strip_control(text) if each in "\n\t" or unicodedata.category(each)[0] != "C")
    return encodable(" ".join("".join(seen).split()), encoding)


def shortened(text: str, limit: int = MAX_SHOWN_CHARACTERS) -> str:
    """`printable`, of at most ``limit`` characters and ``...``."""
    shown = printable(text[: limit * 4])
    return f"{shown[:limit]}..." if len(shown) > limit or len(text) > limit * 4 else shown


def counted(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``, ``1,000 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def cut(text: str, limit: int, mark: str = "...") -> str:
    """The first ``limit`` characters of ``text``, and ``mark`` if there are more."""
    return text if len(text) <= limit else text[:limit] + mark


def fitted(text: str, limit: int, mark: str = "...") -> str:
    """``text`` in ``limit`` characters, ``mark`` included."""
    return text if len(text) <= limit else text[: limit - len(mark)] + mark


def both_ends(text: str, limit: int, mark: str) -> str:
    """The beginning and the end of ``text`` in ``limit`` characters, with ``mark`` for what was between them."""
    start = (limit - len(mark)) // 2
    end = len(text) - (limit - len(mark) - start)
    return text if len(text) <= limit else f"{text[:start]}{mark}{text[end:]}"


def escaped(text: str) -> str:
    """``text`` with control characters, line separators and direction marks written as escapes: one line."""
    if text.isprintable():
        return text
    return _ESCAPED.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def without(text: str, secrets: Iterable[str]) -> str:
    """``text`` with ``***`` for each of ``secrets``."""
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return text


def excerpt(text: Any, secret: str | None) -> str:
    """At most ``MAX_EXCERPT_CHARACTERS`` of what was received, and ``...``, without ``secret`` and bearer tokens."""
    # The secret goes first: half of one, left by a cut, would not be found.
    return _BEARER_TOKEN.sub(rf"\1 {HIDDEN}", cut(without(str(text), filter(None, [secret])), MAX_EXCERPT_CHARACTERS))


def bare_url(url: str | None) -> str | None:
    """``url`` without user, password, query and fragment, any of which may be a secret; ``None`` if it is none."""
    try:
        parts = urlsplit(url or "")
    except ValueError:
        return None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")) if url else None


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """At most ``MAX_REDACTED_CHARACTERS`` of ``text``, with ``***`` for ``secrets`` and for what looks like one."""
    text = without(text, secrets)[: 2 * MAX_REDACTED_CHARACTERS]
    lowered = text.lower()
    for hints, pattern, replacement in _PATTERNS:
        if any(hint in lowered for hint in hints):
            text = pattern.sub(replacement, text)
    return text[:MAX_REDACTED_CHARACTERS]


class _Pattern(NamedTuple):
    """What a secret looks like; only looked for in a text that has one of ``hints``, in lower case."""

    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str


_BEARER_TOKEN = re.compile(r"(?i)\b(bearer)\s+\S+")
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


_SENDABLE_KEY = re.compile("[!-~]+")


def sendable_key(key: str, name: str) -> str:
    """``key`` without the line break of a file of secrets, which no header can have: every request would be 401.

    Raises:
        ValueError: what is left cannot be the token of an ``Authorization`` header (RFC 9110, section 5.5); the
            sentence begins with ``name``.
    """
    key = key.strip()
    if not _SENDABLE_KEY.fullmatch(key):
        raise ValueError(f"{name} must be printable ASCII without spaces or line breaks, or no request could carry it")
    return key
