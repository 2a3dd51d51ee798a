"""Processes of this machine, as far as its ``/proc`` tells."""

import contextlib
import os
import signal
from pathlib import Path

ZOMBIE = "Z"
"""It has ended, and nobody has waited for it."""


def is_alive(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return _facts(pid)[0] != ZOMBIE


def kill_session(leader: int) -> list[int]:
    """kill -9 to all of the session that ``leader`` has begun: those that had not ended yet.

    Workers may have process groups of their own, which one signal to a group does not reach. Without a ``/proc``, the
    leader's group is all that is found.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    numbers = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    left = [pid for pid in numbers if (facts := _facts(pid))[0] not in ("", ZOMBIE) and facts[3:4] == [str(leader)]]
    for pid in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return left


def _facts(pid: int) -> list[str]:
    """Its state, parent, group, session and more (proc_pid_stat(5)); an empty state if nothing is known."""
    try:
        # Its name stands in brackets before, and may hold anything.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split() or [
            ""
        ]
    except OSError:
        return [""]
