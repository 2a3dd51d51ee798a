"""Whether the current rollout is to be graded, and for how long: asked by what gives rewards, set by who runs agents.

Of a rollout of 0.2 nothing is said here, and nothing changes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Grading(Protocol):
    """That of one run."""

    @property
    def is_wanted(self) -> bool:
        """Whether somebody asked for a reward; where not, reward functions are not called."""

    def grading_begins(self) -> None:
        """A reward function, or a judge, begins; from any thread."""

    def grading_ends(self) -> None:
        """It has ended."""


CURRENT_GRADING: ContextVar[Grading | None] = ContextVar("CURRENT_GRADING", default=None)


def is_graded() -> bool:
    """Whether the current rollout wants a reward."""
    grading = CURRENT_GRADING.get()
    return grading is None or grading.is_wanted


@contextmanager
def while_grading() -> Iterator[None]:
    """Count what is within as grading, against the limit of that instead of the agent's."""
    grading = CURRENT_GRADING.get()
    if grading is None:
        yield
        return
    grading.grading_begins()
    try:
        yield
    finally:
        grading.grading_ends()
