"""The agent loop as a server would find it, loaded in a child process that is killed when its time is up."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

CHILD = "osmosis_ai.rollout.tooling.doctor.agent_child"
READ_BYTES = 65_536
MAX_REPORT_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class AgentReport:
    """As far as it got; what was not reached has its default."""

    stage: str = "start"
    """``start``, ``import``, ``loop``, ``tools`` or ``done``: what it was at when it ended, or its time was up."""
    timed_out: bool = False
    time_limit_seconds: float = 0.0
    """How long it was given."""
    no_import: str | None = None
    """Why the module cannot be imported."""
    missing_module: str | None = None
    """What was not found, if that is the reason."""
    no_loop: str | None = None
    """Why the attribute is no agent loop."""
    import_seconds: float | None = None
    tools_seconds: float | None = None
    name: str | None = None
    tool_count: int = 0
    errors: tuple[tuple[str, str], ...] = ()
    """Of the validator: the field, and the sentence."""
    warnings: tuple[str, ...] = ()

    @property
    def is_loop(self) -> bool:
        """Whether there is an agent loop, valid or not."""
        return self.stage in ("tools", "done") and self.no_import is None and self.no_loop is None


class AgentChild:
    """The process that loads the agent loop which ``module`` or ``mcp`` names; at work from construction on."""

    def __init__(self, module: str | None, mcp: str | None) -> None:
        arguments = ["m", module] if module is not None else ["mcp", mcp or ""]
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and a name as one argument
            [sys.executable, "-m", CHILD, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def report(self, time_limit_seconds: float) -> AgentReport:
        """What it finds in time; then it is ended."""
        report = AgentReport()
        deadline = time.monotonic() + time_limit_seconds
        try:
            for fields in _lines(self._process, deadline):
                report = _with(report, fields)
                if report.stage == "done":
                    break
        finally:
            self.kill()
        timed_out = report.stage != "done" and time.monotonic() >= deadline
        return replace(report, timed_out=timed_out, time_limit_seconds=time_limit_seconds)

    def kill(self) -> None:
        """End it, with what the agent's modules have started: that is in its session. Does no harm twice."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _lines(child: "subprocess.Popen[bytes]", deadline: float) -> Iterator[dict[str, Any]]:
    if child.stdout is None:
        return
    pending = b""
    received_bytes = 0
    while received_bytes < MAX_REPORT_BYTES and (seconds := deadline - time.monotonic()) > 0:
        if not select.select([child.stdout], [], [], seconds)[0]:
            return
        chunk = os.read(child.stdout.fileno(), READ_BYTES)
        if not chunk:
            return
        received_bytes += len(chunk)
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            with suppress(ValueError):
                fields = json.loads(line)
                if isinstance(fields, dict):
                    yield fields


def _with(report: AgentReport, fields: dict[str, Any]) -> AgentReport:
    if "errors" in fields:
        fields["errors"] = tuple((str(place), str(text)) for place, text in fields["errors"])
        fields["warnings"] = tuple(map(str, fields["warnings"]))
    return replace(report, **fields)
