"""The checks of the conformance kit, as tables whose last column leads into the protocol, and what tries them."""

import sys
from pathlib import Path

from rollout_conformance import Check, all_checks
from rollout_conformance.catalogue import GROUPS

TESTS = Path(__file__).parents[2] / "conformance/tests"


def tables() -> str:
    """A table for each group."""
    parts = []
    for group, title in GROUPS.items():
        rows = [_row(check) for check in all_checks() if check.group == group]
        parts.append(
            "\n".join([f"### {title}", "", "| check | level | what holds | sentences |", "|---|---|---|---|", *rows])
        )
    return "\n\n".join(parts)


def planted_defects() -> dict[str, list[str]]:
    """By check: the names of the broken servers that it is tried on, and finds."""
    sys.path.insert(0, str(TESTS))
    try:
        from servers.mutants import MUTANTS
    finally:
        sys.path.remove(str(TESTS))
    found: dict[str, list[str]] = {}
    for mutant in MUTANTS.values():
        for check in sorted(mutant.finds):
            found.setdefault(check, []).append(mutant.name)
    return found


def _row(check: Check) -> str:
    names = ", ".join(f"[{name}](protocol.md#{name})" for name in check.sentences)
    return f"| `{check.id}` | {check.level} | {check.summary} | {names} |"
