"""The agent loop, loaded and validated in a process that may hang, exit or print, and is ended when its time is up.

``AgentChild`` starts this module as ``python -m ... m|mcp NAME``. That process says what it does and what it found on
its first standard output, a JSON object a line, shaped as the fields of ``AgentReport``; what the agent's modules print
goes nowhere.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Timer
from typing import TYPE_CHECKING, Any, TextIO

from osmosis_ai.rollout.core.user_errors import CLIError

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.base import RolloutAgentLoop

MAX_LINE_BYTES = 1_048_576


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
    errors: Sequence[tuple[str, str]] = ()
    """Of the validator: the field, and the sentence."""
    warnings: Sequence[str] = ()

    @property
    def is_loop(self) -> bool:
        """Whether there is an agent loop, valid or not."""
        return self.stage in ("tools", "done") and self.no_import is None and self.no_loop is None


class AgentChild:
    """The process that loads the agent loop which ``module`` or ``mcp`` names; at work from construction on."""

    def __init__(self, module: str | None, mcp: str | None) -> None:
        arguments = ["m", module] if module is not None else ["mcp", mcp or ""]
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and a name as one argument
            [sys.executable, "-m", __name__, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def report(self, time_limit_seconds: float) -> AgentReport:
        """What it finds in time; then it is ended."""
        report = AgentReport(time_limit_seconds=time_limit_seconds)
        deadline = time.monotonic() + time_limit_seconds
        timer = Timer(time_limit_seconds, self.kill)
        timer.start()
        try:
            # The pipe ends with the child, for nobody else has it: what the agent prints goes nowhere.
            assert self._process.stdout is not None  # noqa: S101 - it is a pipe
            while report.stage != "done" and (line := self._process.stdout.readline(MAX_LINE_BYTES)):
                with suppress(ValueError):
                    report = replace(report, **json.loads(line))
        finally:
            timer.cancel()
            self.kill()
        return replace(report, timed_out=report.stage != "done" and time.monotonic() >= deadline)

    def kill(self) -> None:
        """End it, with what the agent's modules have started: that is in its session. Does no harm twice."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def main(kind: str, name: str) -> None:
    """Report on the agent loop ``name``: ``module:attribute`` if ``kind`` is ``m``, a folder if it is ``mcp``."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as report:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        agent_loop = _load(kind, name, report)
        if agent_loop is not None:
            _validate(agent_loop, report)
        _say(report, stage="done")


def _say(report: TextIO, **fields: Any) -> None:
    report.write(json.dumps(fields) + "\n")
    report.flush()


def _load(kind: str, name: str, report: TextIO) -> "RolloutAgentLoop | None":
    from osmosis_ai.rollout.core.base import RolloutAgentLoop
    from osmosis_ai.rollout.core.loading import import_module_attribute, load_agent_loop

    _say(report, stage="import")
    started = time.monotonic()
    try:
        if kind == "mcp":
            from osmosis_ai.rollout.mcp.agent_loop import load_mcp_agent

            return load_mcp_agent(name)
        import_module_attribute(name, RolloutAgentLoop)
    except CLIError as error:
        is_imported = name.rpartition(":")[0] in sys.modules
        missing = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        _say(report, **{"no_loop" if is_imported else "no_import": str(error)}, missing_module=missing)
        return None
    _say(report, import_seconds=time.monotonic() - started, stage="loop")
    try:
        return load_agent_loop(name)
    except CLIError as error:
        _say(report, no_loop=str(error))
        return None


def _validate(agent_loop: "RolloutAgentLoop", report: TextIO) -> None:
    from osmosis_ai.rollout.core.validator import validate_agent_loop

    _say(report, stage="tools")
    started = time.monotonic()
    result = validate_agent_loop(agent_loop)
    _say(
        report,
        tools_seconds=time.monotonic() - started,
        name=result.agent_name,
        tool_count=result.tool_count,
        errors=[[error.field or "", str(error)] for error in result.errors],
        warnings=[str(warning) for warning in result.warnings],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
