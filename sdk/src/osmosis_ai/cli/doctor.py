"""``osmosis doctor``: what is wrong with a set-up, and what to do about it."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from osmosis_ai.cli import options as table
from osmosis_ai.rollout.core.consts import TRAINER_KEY_VARIABLE

PROGRAM_SECONDS = 2.6
"""From the start of the program to the end of its checks, unless it is told otherwise."""
AGENT_SECONDS = 30.0
"""For an agent's import and its tools: whatever it needs, unless it hangs."""
MIN_TIME_LIMIT_SECONDS = 1.0
"""For the checks, however long the start took."""


def doctor(
    module: table.Module = None,
    mcp: table.Mcp = None,
    port: table.Port = 9000,
    host: table.Host = None,
    local: table.Local = False,
    api_key: table.ServerKey = None,
    journal: table.Journal = None,
    traces: table.Log = None,
    trainer: Annotated[
        str | None,
        typer.Option("--trainer", metavar="URL", help="A trainer to call, as its inits name it in server_url."),
    ] = None,
    trainer_key: Annotated[
        str | None,
        typer.Option(
            "--trainer-key",
            envvar=TRAINER_KEY_VARIABLE,
            show_envvar=True,
            help="Key of the calls to the trainer, as its inits bring it in api_key. It is tried with one empty "
            "result, which no trainer can take for one.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", "-d", metavar="FILE", help="Rows to look through: .jsonl, .csv or .parquet."),
    ] = None,
    columns: table.Columns = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The model of osmosis test [default: that command's own]")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            min=0.1,
            metavar="SECONDS",
            help="Time for all checks together [default: what is left of three seconds, 30 for the agent]",
        ),
    ] = None,
    as_json: table.AsJson = False,
) -> int:
    """Name what is misconfigured, each with what to do; exit code 1 if there is a problem. Changes nothing."""
    given = locals()
    del given["timeout"], given["as_json"]
    from osmosis_ai.rollout.run.agents import check_naming

    check_naming(module, mcp, is_required=False)
    from osmosis_ai.rollout.tooling.doctor.agent_child import AgentChild

    # It loads the agent while this process loads the checks.
    agent_child = AgentChild(module, mcp) if module is not None or mcp is not None else None
    from osmosis_ai.rollout.core.console import console
    from osmosis_ai.rollout.core.json_document import write_document
    from osmosis_ai.rollout.tooling.doctor.examination import examine
    from osmosis_ai.rollout.tooling.doctor.render import as_json as to_json, print_diagnosis
    from osmosis_ai.rollout.tooling.doctor.types import Setup

    agent_seconds = AGENT_SECONDS if timeout is None else timeout
    if timeout is None:
        timeout = max(PROGRAM_SECONDS - _seconds_since_start(), MIN_TIME_LIMIT_SECONDS)
    diagnosis = examine(
        Setup(**given),
        time_limit_seconds=timeout,
        agent_child=agent_child,
        agent_time_limit_seconds=agent_seconds,
    )
    if as_json:
        write_document([to_json(diagnosis), "\n"])
    else:
        print_diagnosis(console, diagnosis)
    return 0 if diagnosis.is_healthy else 1


def _seconds_since_start() -> float:
    """Of this process, by Linux's account (proc_pid_stat(5)); elsewhere at least the time it has computed."""
    with suppress(OSError, ValueError, IndexError, AttributeError):
        # The second field, a name in parentheses, may hold anything.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.process_time()
