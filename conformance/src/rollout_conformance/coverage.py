"""How much of the protocol a run has tried: its sentences, by what came of their checks."""

from collections.abc import Iterable
from dataclasses import dataclass

from rollout_conformance.sentences import WHY_NOT, sentences
from rollout_conformance.vocabulary import Result, Status

_TRIED = frozenset({Status.PASSED, Status.FAILED})


@dataclass(frozen=True)
class Coverage:
    """The names of all sentences, each in one of three."""

    checked: tuple[str, ...]
    """A check of it held, or did not."""
    not_exercised: tuple[str, ...]
    """It has checks, and none came to a verdict: left out, or nothing to try them on."""
    not_checkable: tuple[str, ...]
    """Nothing can try it from outside, or it binds the trainer; ``sentences.WHY_NOT`` says why."""

    def __str__(self) -> str:
        counts = len(self.checked), len(self.not_exercised), len(self.not_checkable)
        return "Of {} sentences of the protocol {} were checked, {} not exercised, {} are not checkable.".format(
            sum(counts), *counts
        )


def coverage(results: Iterable[Result]) -> Coverage:
    """What the results of a run say."""
    tried = {name for result in results if result.status in _TRIED for name in result.check.sentences}
    return Coverage(
        tuple(name for name in sentences() if name in tried),
        tuple(name for name in sentences() if name not in tried and name not in WHY_NOT),
        tuple(name for name in sentences() if name not in tried and name in WHY_NOT),
    )
