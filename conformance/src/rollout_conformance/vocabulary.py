"""The vocabulary of the kit: what a check is, and what comes of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from rollout_conformance.evidence import Evidence, latest
from rollout_conformance.sentences import Level, sentences

if TYPE_CHECKING:
    from rollout_conformance.kit import Kit


class Phase(StrEnum):
    """When a check runs; ``judge`` says which phases overlap."""

    TOGETHER = "together"
    """At the same time as all others of the phase."""

    LATE = "late"
    """Beside the last of these, which wait for the server's delays; one at a time: it loads the server."""

    ALONE = "alone"
    """By itself: no call of another rollout may come between."""

    AUDIT = "audit"
    """After these: it looks at every rollout that was played."""

    STOPPING = "stopping"
    """Last: it stops the server. It plays its rollouts by itself, while the audits look at those before."""


AUDIT, LATE, STOPPING = Phase.AUDIT, Phase.LATE, Phase.STOPPING


class Status(StrEnum):
    """What came of a check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It does not apply: the server has no key or no tools, or the run may not do what it takes."""
    NOT_EXERCISED = "not_exercised"
    """It applies, but what it is about did not come to pass: nothing is known. Fails a strict run."""
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
    """Raises ``Failed``, ``Skipped`` or ``NotExercised``; returns when the promise was kept."""

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
    sent: str = ""
    """Of a failure: what the kit sent."""
    seen: str = ""
    """Of a failure: all that came of it, in order."""
    subjects: frozenset[str] = frozenset()
    """Of an audit's failure: the checks (or the group) whose rollouts broke the promise, ``|`` between whose it may be.
    """
    cause: str = ""
    """The failed check that this failure, or this lack of a verdict, follows from; empty if it stands for itself."""
    usually: str | None = None
    """What usually lies behind this very failure; ``None`` where that is what lies behind the check's."""
    was_too_busy: bool = False
    """Whether nothing is known because this machine was too busy to tell."""

    def is_failure(self, *, strict: bool) -> bool:
        """Whether the run fails because of it, but for a baseline."""
        if self.status is Status.FAILED:
            return self.check.level is Level.MUST or strict
        return self.status is Status.BROKEN or (self.status is Status.NOT_EXERCISED and strict)

    @property
    def is_warning(self) -> bool:
        """Whether it is a SHOULD that does not hold."""
        return self.status is Status.FAILED and self.check.level is Level.SHOULD


_UNTRIED = (Status.SKIPPED, Status.NOT_EXERCISED)


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
    expected_failures: frozenset[str] = frozenset()
    """Ids of checks that may fail, from a baseline."""
    server_output: tuple[str, ...] = ()
    """Of a server that has ended by itself, or has not answered: a sentence, and the last lines that it has printed."""
    late_seconds: float = 0.0
    """How late the kit itself was at most: what fails on a machine that is too busy may be no fault of the server."""

    @property
    def failures(self) -> list[Result]:
        """The results that make the run fail."""
        return [result for result in self._failing if result.check.id not in self.expected_failures]

    @property
    def known_failures(self) -> list[Result]:
        """The results that would make it fail, if they were not expected to."""
        return [result for result in self._failing if result.check.id in self.expected_failures]

    @property
    def mended(self) -> list[str]:
        """The checks that were expected to fail and passed."""
        passed = {result.check.id for result in self.results if result.status is Status.PASSED}
        return sorted(self.expected_failures & passed)

    @property
    def is_success(self) -> bool:
        """Whether something was tried, and nothing failed that was not expected to."""
        return not self.failures and any(result.status not in _UNTRIED for result in self.results)

    @property
    def conforms(self) -> bool:
        """Whether something was tried, and nothing failed."""
        return self.is_success and not self.known_failures

    @property
    def _failing(self) -> list[Result]:
        return [result for result in self.results if result.is_failure(strict=self.strict)]

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
        subjects: of an audit, the checks (or the group) whose rollouts it is about.
        usually: what usually lies behind it, where that is not what lies behind the check's other failures.
    """

    def __init__(
        self, expected: str, got: str, subjects: frozenset[str] = frozenset(), *, usually: str | None = None
    ) -> None:
        super().__init__(f"expected {expected}; got {got}")
        self.got = got
        self.subjects = subjects
        self.usually = usually
        self.evidence: Evidence = latest()


class Skipped(Exception):  # noqa: N818 - a verdict, not an error of the kit
    """The promise does not apply here; the text says why."""


class NotExercised(Exception):  # noqa: N818 - a verdict, not an error of the kit
    """What the promise is about did not come to pass; the text says what it would take.

    Args:
        cause: the check that failed where it did not; empty if none did.
    """

    def __init__(self, text: str, *, cause: str = "") -> None:
        super().__init__(text)
        self.cause = cause


class TooBusy(NotExercised):
    """This machine was too busy to tell; when less goes on, it may not be."""

    def __init__(self, seen: str) -> None:
        super().__init__(f"this machine was too busy: {seen}; run it on an idle one")
