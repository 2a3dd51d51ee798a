"""What a failure is about: the request that was sent last, and the rollout that was looked at last.

Noted by the kit as it goes, in the context of the running task, so that a check need not carry it along and those that
run side by side do not mix it up; a ``Failed`` takes what is latest when it is made.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol


class Played(Protocol):
    """A rollout that can tell what came of it."""

    @property
    def sent(self) -> str:
        """Its init, in words."""

    def story(self) -> str:
        """What came of it so far, in words."""


@dataclass(frozen=True)
class Evidence:
    """Nothing, a request, or a rollout."""

    request: str = ""
    rollout: Played | None = None

    @property
    def sent(self) -> str:
        """What was sent, in words."""
        return self.request or (self.rollout.sent if self.rollout else "")

    @property
    def seen(self) -> str:
        """What came of it, in words."""
        return self.rollout.story() if self.rollout else ""


_latest: ContextVar[Evidence] = ContextVar("evidence", default=Evidence())  # noqa: B039 - it is frozen


def latest() -> Evidence:
    """What was noted last in this task, or before it began."""
    return _latest.get()


def nothing_yet() -> None:
    """A check begins: what was sent before it began is not its own."""
    _latest.set(Evidence())


def looked_at(rollout: Played) -> None:
    """A rollout is looked at."""
    _latest.set(Evidence(rollout=rollout))


def sending(request: str, rollout: Played | None = None) -> None:
    """A request is sent, for a rollout or for none."""
    _latest.set(Evidence(request, rollout))
