"""``osmosis serve``."""

from enum import StrEnum
from typing import Annotated

import typer

from osmosis_ai.cli import options as table
from osmosis_ai.rollout.core.user_errors import CLIError

LogLevel = StrEnum("LogLevel", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])


class LogFormat(StrEnum):
    """Formats of ``--log-format``: those of `core.settings`, which takes too long to import for ``--help``."""

    TEXT = "text"
    JSON = "json"


def serve(
    module: table.Module = None,
    mcp: table.Mcp = None,
    reward: table.Reward = None,
    port: table.Port = 9000,
    host: table.Host = None,
    no_validate: Annotated[bool, typer.Option("--no-validate", help="Skip the check of the agent loop.")] = False,
    reload: Annotated[bool, typer.Option("--reload", help="Restart when a Python file changes.")] = False,
    workers: Annotated[
        int, typer.Option("--workers", "-w", min=1, metavar="N", help="Processes that share the port and the journal.")
    ] = 1,
    log_level: Annotated[LogLevel, typer.Option("--log-level", help="How much to log.")] = LogLevel.INFO,
    log_format: Annotated[
        LogFormat | None,
        typer.Option("--log-format", show_default=False, help="How to write log lines [default: text]"),
    ] = None,
    skip_register: Annotated[
        bool, typer.Option("--skip-register", help="No effect: registration is not available.")
    ] = False,
    local_debug: table.Local = False,
    api_key: table.ServerKey = None,
    debug_dir: table.Log = None,
    journal: table.Journal = None,
    fd: Annotated[
        int | None, typer.Option("--fd", metavar="N", min=0, help="Serve on this inherited listening socket.")
    ] = None,
    as_json: table.AsJson = False,
) -> int:
    """Serve an agent loop to a trainer."""
    from osmosis_ai.rollout.core.validator import AgentLoopValidationError
    from osmosis_ai.rollout.run.agents import load_agent
    from osmosis_ai.rollout.server.serve import DEFAULT_HOST, serve_agent_loop

    agent_loop = load_agent(module, mcp, reward)
    try:
        serve_agent_loop(
            agent_loop,
            host=host or ("127.0.0.1" if local_debug else DEFAULT_HOST),
            port=port,
            validate=not no_validate,
            log_level=str(log_level),
            reload=reload,
            workers=workers,
            skip_register=skip_register,
            api_key=api_key,
            local_debug=local_debug,
            debug_dir=debug_dir,
            journal=journal,
            fd=fd,
            module_path=module,
            mcp_path=mcp,
            mcp_reward=reward,
            log_format=None if log_format is None else log_format.value,
            as_json=as_json,
        )
    except AgentLoopValidationError as error:
        if as_json:
            raise CLIError(str(error)) from error
        return 1  # the report has been printed
    except ImportError as error:
        raise CLIError(str(error)) from error
    return 0
