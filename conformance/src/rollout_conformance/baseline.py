"""A baseline: the checks that are expected to fail, so that a team can gate on "no worse".

A text file, one check a line; what follows a ``#`` is for people.
"""

from pathlib import Path

from rollout_conformance.catalogue import all_checks
from rollout_conformance.text import printable
from rollout_conformance.vocabulary import ConformanceError, Report, UsageError

HEADER = "# Checks of rollout-conformance that this server may fail: --baseline. One a line; take out what is mended.\n"


def read(path: Path) -> frozenset[str]:
    """The ids in the file.

    Raises:
        UsageError: it cannot be read, or a line names no check.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"--baseline {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    known = {check.id for check in all_checks()}
    ids = set()
    for number, line in enumerate(lines, start=1):
        if not (name := line.partition("#")[0].strip()):
            continue
        if name not in known:
            raise UsageError(f"--baseline {path}, line {number}: there is no check {name!r}; --list shows them.")
        ids.add(name)
    return frozenset(ids)


def write(path: Path, report: Report) -> int:
    """Write what fails in this report; gives the number of checks.

    Raises:
        ConformanceError: it cannot be written.
    """
    failing = {result.check.id for result in (*report.failures, *report.known_failures)}
    lines = [f"{one.check.id}  # {printable(one.reason)}\n" for one in report.results if one.check.id in failing]
    try:
        path.write_text(HEADER + "".join(lines), encoding="utf-8")
    except OSError as error:
        raise ConformanceError(f"{path} cannot be written: {error.strerror}.") from error
    return len(lines)
