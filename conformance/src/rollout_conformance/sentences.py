"""The sentences of the protocol that bind somebody, by the names that they keep; and why some cannot be tried.

``sentences.json`` is written from ``docs/protocol.md`` by ``uv run python -m docs.generate``. The name of a sentence
that goes is kept in ``WITHDRAWN``, so that it never comes to mean another.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files


class Level(StrEnum):
    """How much a sentence weighs, and so does what tries it: the key words of RFC 2119."""

    MUST = "MUST"
    """The other side breaks without it."""

    SHOULD = "SHOULD"
    """A failure is a warning, unless the run is strict."""

    MAY = "MAY"
    """A permission: there is nothing to try."""


@dataclass(frozen=True)
class Sentence:
    """One sentence, or row of a table."""

    id: str
    """``topic-number``."""
    level: Level
    """By its key word."""
    section: str
    text: str


@cache
def sentences() -> Mapping[str, Sentence]:
    """All, in the order of the page."""
    rows = json.loads((files("rollout_conformance") / "sentences.json").read_text(encoding="utf-8"))
    return {row["id"]: Sentence(row["id"], Level(row["level"]), row["section"], row["text"]) for row in rows}


def _all(reason: str, ids: str) -> Iterator[tuple[str, str]]:
    return ((name, reason) for name in ids.split())


TRAINER = "it binds the trainer"
PERMISSION = "it permits"
OWN_LIMITS = "the server's own limits, which the kit does not set, and waits of minutes"
CLOCK = "it takes days, or a clock that is set"
AGENT = "no agent can be asked to do wrong"
LATER = "no check yet"

WITHDRAWN: frozenset[str] = frozenset()

WHY_NOT: Mapping[str, str] = dict(
    (
        *_all(TRAINER, "http-14 key-8 key-9 offer-6 same-7 same-14 same-15 same-16 answer-1 answer-2 answer-4"),
        *_all(TRAINER, "retry-12 whole-9 whole-10 absent-4 result-7"),
        *_all(TRAINER, "deliver-9 deliver-10 deliver-11 deliver-12 deliver-13 order-2"),
        *_all(OWN_LIMITS, "init-18 retry-13 result-14 limit-2 limit-3 limit-4 limit-5"),
        *_all(CLOCK, "same-10 same-12"),
        *_all(AGENT, "chat-11"),
        ("key-4", "what a comparison takes is lost in the time of a network"),
        *_all(
            LATER,
            "http-1 http-7 http-8 http-9 http-10 http-11 http-12 http-13 http-15 key-3 err-1 init-8 init-10 init-11"
            " init-13 init-14 init-15 init-21 offer-4 same-3 same-5 same-9 same-11 same-13 chat-4 chat-5 chat-6 chat-7"
            " chat-8 chat-20 chat-16 chat-19 answer-6 retry-1 retry-7 retry-10 whole-1 absent-1 absent-2 result-2"
            " result-3 result-4 result-10 result-17 metric-4 metric-7 deliver-5 deliver-6 deliver-7 state-1 state-2"
            " state-3 state-4 state-5 state-7 state-10 state-11 drain-3 drain-4",
        ),
        *_all(
            PERMISSION, "way-6 http-3 init-2 init-7 offer-7 same-6 chat-13 answer-5 result-15 state-8 state-9 state-12"
        ),
    )
)
"""Why a sentence has no check."""
