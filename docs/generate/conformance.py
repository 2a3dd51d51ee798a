"""The checks of the conformance kit, as tables whose last column leads into the protocol."""

import re
from pathlib import Path

from rollout_conformance import Check, all_checks
from rollout_conformance.catalogue import GROUPS

PROTOCOL = Path(__file__).parents[1] / "protocol.md"
_HEADING = re.compile(r"^##+ (\d[\d.]*?)\.? (.+)$", re.MULTILINE)


def tables() -> str:
    """A table for each group.

    Raises:
        KeyError: a check names a section that the protocol does not have.
    """
    anchors = _anchors()
    parts = []
    for group, title in GROUPS.items():
        rows = [_row(check, anchors) for check in all_checks() if check.group == group]
        parts.append(
            "\n".join([f"### {title}", "", "| check | level | what holds | section |", "|---|---|---|---|", *rows])
        )
    return "\n\n".join(parts)


def _row(check: Check, anchors: dict[str, str]) -> str:
    sections = ", ".join(f"[{section}](protocol.md#{anchors[section]})" for section in check.section.split(", "))
    return f"| `{check.id}` | {check.level} | {check.summary} | {sections} |"


def _anchors() -> dict[str, str]:
    headings = _HEADING.findall(PROTOCOL.read_text(encoding="utf-8"))
    return {number: _slug(f"{number} {title}") for number, title in headings}


def _slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
