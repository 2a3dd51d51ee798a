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

WITHDRAWN: frozenset[str] = frozenset()

WHY_NOT: Mapping[str, str] = dict(
    (
        *_all(TRAINER, "http-14 key-8 key-9 offer-6 same-7 same-14 same-15 same-16 answer-1 answer-2 answer-4"),
        *_all(TRAINER, "answer-9 retry-12 whole-9 whole-10 absent-4 result-7"),
        *_all(TRAINER, "deliver-9 deliver-10 deliver-11 deliver-12 deliver-13 order-2"),
        *_all(
            OWN_LIMITS,
            "init-18 retry-14 result-14 limit-3 limit-4 limit-5 deliver-15",
        ),
        *_all(CLOCK, "same-10 same-12"),
        *_all(AGENT, "chat-11"),
        ("state-15", "it takes two processes of one journal, each at an address of its own, and the kit knows one"),
        ("key-12", "where a server writes them is its own matter"),
        ("key-4", "what a comparison takes is lost in the time of a network"),
        *_all(
            PERMISSION,
            "way-6 http-3 http-16 init-2 init-7 init-23 offer-7 same-6 chat-13 answer-5 answer-8 result-15",
        ),
        *_all(PERMISSION, "state-8 state-9 state-12 drain-8 drain-9 limit-6 retry-17 retry-18"),
    )
)
"""Why a sentence has no check."""
