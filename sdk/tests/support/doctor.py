"""One check at a time of ``osmosis doctor``, here or in a process that has less than this one."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.tooling.doctor.examination import CHECKS, examine
from osmosis_ai.rollout.tooling.doctor.types import Finding, Setup, Status
from support.processes import own_environment

PATIENCE_SECONDS = 60.0
TESTS = Path(__file__).parents[1]

ASK = """
import json, sys
from support.doctor import find
found = find(sys.argv[1], **json.loads(sys.argv[2]))
print(json.dumps([found.status, found.message, found.fix]))
"""


def find(check_id: str, **setup: Any) -> Finding:
    """What the check ``check_id`` finds in ``Setup(**setup)``, with all the time it wants."""
    checks = [check for check in CHECKS if check.id == check_id]
    assert checks, check_id
    return examine(Setup(**setup), time_limit_seconds=PATIENCE_SECONDS, checks=checks).findings[check_id]


def find_elsewhere(
    check_id: str, *before: str, python: tuple[str, ...] = (), variables: Mapping[str, str] | None = None, **setup: Any
) -> Finding:
    """As ``find``, in a process of its own; ``before`` are words in front of its command line, ``python`` options."""
    import json

    environment = own_environment(**(variables or {}))
    environment["PYTHONPATH"] = ":".join(filter(None, [environment.get("PYTHONPATH"), str(TESTS)]))
    command = [*before, sys.executable, *python, "-c", ASK, check_id, json.dumps(setup)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    status, message, fix = json.loads(done.stdout.splitlines()[-1])
    return Finding(Status(status), message, fix)


def assert_names(finding: Finding, status: Status, *words: str) -> None:
    """The finding has ``status``, one line of text with ``words`` in it, and one line of what to do."""
    assert finding.status is status, finding
    assert finding.fix, finding
    for text in (finding.message, finding.fix):
        assert "\n" not in text
    for word in words:
        assert word in f"{finding.message} {finding.fix}", finding
