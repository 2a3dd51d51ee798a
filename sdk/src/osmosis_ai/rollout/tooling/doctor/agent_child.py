"""Loads an agent loop and validates it, in a process that may hang, exit or print: ``python -m ... m|mcp NAME``.

Says what it does and what it found on its first standard output, a JSON object a line, shaped as the fields of
``agent.AgentReport``; what the agent's modules print goes nowhere.
"""

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from osmosis_ai.rollout.core.user_errors import CLIError

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.base import RolloutAgentLoop


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
    from osmosis_ai.rollout.core.loading import import_module_attribute, load_agent_loop

    _say(report, stage="import")
    started = time.monotonic()
    try:
        if kind == "mcp":
            from osmosis_ai.rollout.mcp.agent_loop import load_mcp_agent

            return load_mcp_agent(name)
        import_module_attribute(name)
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
