"""The vocabulary of the kit: what a check is, and what comes of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from rollout_conformance.sentences import Level, sentences

if TYPE_CHECKING:
    from rollout_conformance.kit import Kit


class Phase(StrEnum):
    """When a check runs; phases follow each other in this order."""

    TOGETHER = "together"
    """At the same time as all others of the phase."""

    ALONE = "alone"
    """By itself: it loads the server."""

    AUDIT = "audit"
    """After the others: it looks at every rollout that was played."""

    STOPPING = "stopping"
    """Last, by itself: it stops the server."""


AUDIT, STOPPING = Phase.AUDIT, Phase.STOPPING


class Status(StrEnum):
    """What came of a check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    BROKEN = "broken"
    """The kit itself failed; a fault to report."""


@dataclass(frozen=True)
class Check:
    """One promise, and how it is tried."""

    id: str
    """``group.name``, stable over releases."""
    sentences: tuple[str, ...]
    """The names of what the protocol says of it: at least one, all of one level."""
    summary: str
    """What holds, in one line."""
    phase: Phase
    run: "Callable[[Kit], Awaitable[None]]"
    """Raises ``Failed`` or ``Skipped``; returns when the promise was kept."""

    @property
    def group(self) -> str:
        """The part of the id before the dot."""
        return self.id.partition(".")[0]

    @property
    def level(self) -> Level:
        """How much it weighs: as the protocol's sentence says."""
        return sentences()[self.sentences[0]].level

    @property
    def section(self) -> str:
        """Where the protocol says so: its sections."""
        return ", ".join(dict.fromkeys(sentences()[name].section for name in self.sentences))


@dataclass(frozen=True)
class Result:
    """One check's outcome."""

    check: Check
    status: Status
    reason: str = ""
    """One sentence; empty for a check that passed."""
    seconds: float = 0.0

    def is_failure(self, *, strict: bool) -> bool:
        """Whether the run fails because of it."""
        counts = self.check.level is Level.MUST or strict
        return self.status is Status.BROKEN or (self.status is Status.FAILED and counts)

    @property
    def is_warning(self) -> bool:
        """Whether it is a SHOULD that does not hold."""
        return self.status is Status.FAILED and self.check.level is Level.SHOULD


@dataclass(frozen=True)
class Report:
    """What a run found, in the order of the catalogue."""

    server_url: str
    results: tuple[Result, ...]
    seconds: float
    strict: bool = False
    rollouts: int = 0
    """How many rollouts were played."""
    agent_failure: str = ""
    """What the agent itself failed with, where it was asked with inits that the kit made up."""

    @property
    def failures(self) -> list[Result]:
        """The results that make the run fail."""
        return [result for result in self.results if result.is_failure(strict=self.strict)]

    @property
    def is_success(self) -> bool:
        """Whether something was tried and nothing failed."""
        return not self.failures and any(result.status is not Status.SKIPPED for result in self.results)

    def count(self, status: Status) -> int:
        """How many results have this status."""
        return sum(result.status is status for result in self.results)


class ConformanceError(Exception):
    """The run could not be made; one sentence that says what to do."""


class UsageError(ConformanceError):
    """It makes no sense as it was asked for: an option, or a choice that names no check."""


class Failed(Exception):  # noqa: N818 - a verdict, not an error of the kit
    """The promise was broken.

    Args:
        expected: what should have come, as the end of "expected ...".
        got: what came instead.
    """

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}; got {got}")


class Skipped(Exception):  # noqa: N818 - a verdict, not an error of the kit
    """The promise could not be tried here; the text says why."""
