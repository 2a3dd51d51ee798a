"""A diagnosis as text, a check a line and its fix below, or as JSON."""

import json
from dataclasses import asdict

from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.text import printable
from osmosis_ai.rollout.tooling.doctor.types import Diagnosis, Status

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.PROBLEM: "bold red", Status.NOT_CHECKED: "dim"}
_STATUS_WIDTH = max(map(len, Status))


def print_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """Print the table, then what it comes to."""
    id_width = max(map(len, diagnosis.findings))
    unchecked: dict[str, list[str]] = {}
    for check_id, finding in diagnosis.findings.items():
        if finding.status is Status.NOT_CHECKED:
            unchecked.setdefault(" ".join(filter(None, (finding.message, finding.fix))), []).append(check_id)
            continue
        _line(console, f"{_status(console, finding.status)}  {check_id:<{id_width}}  {_text(console, finding.message)}")
        if finding.fix is not None:
            _line(console, f"{'':{_STATUS_WIDTH + id_width + 4}}Fix: {_text(console, finding.fix)}")
    for reason, check_ids in unchecked.items():
        _line(console, f"{_status(console, Status.NOT_CHECKED)}  {', '.join(check_ids)}: {_text(console, reason)}")
    console.print()
    _line(console, summary(diagnosis))


def _status(console: Console, status: Status) -> str:
    return console.format_styled(f"{status:<{_STATUS_WIDTH}}", _STYLES[status])


def _text(console: Console, text: str) -> str:
    return console.escape(printable(text))


def _line(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False)


def summary(diagnosis: Diagnosis) -> str:
    """How many findings of each status, in a line."""
    counts = []
    for status in (Status.PROBLEM, Status.WARNING, Status.OK, Status.NOT_CHECKED):
        number = diagnosis.count(status)
        plural = "s" if number != 1 and status in (Status.PROBLEM, Status.WARNING) else ""
        counts.append(f"{number} {status}{plural}")
    return f"{', '.join(counts)} ({diagnosis.seconds:.1f} s)"


def as_json(diagnosis: Diagnosis) -> str:
    """``{"healthy", "seconds", "counts": {status: number}, "checks": [{"id", "status", "message", "fix"}]}``."""
    document = {
        "healthy": diagnosis.is_healthy,
        "seconds": round(diagnosis.seconds, 3),
        "counts": {status.value: diagnosis.count(status) for status in Status},
        "checks": [{"id": check_id, **asdict(finding)} for check_id, finding in diagnosis.findings.items()],
    }
    return json.dumps(document, indent=2)
