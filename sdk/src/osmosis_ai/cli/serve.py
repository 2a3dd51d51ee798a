"""``osmosis serve``."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from osmosis_ai.cli.common import McpOption, ModuleOption, load_agent
from osmosis_ai.rollout.core.user_errors import CLIError

if TYPE_CHECKING:
    from pydantic import ValidationError

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - the documented default; a key is asked for
LOOPBACK = "127.0.0.1"


class LogFormat(StrEnum):
    """Formats of ``--log-format``."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """Levels of ``--log-level``."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


def serve(
    module: ModuleOption = None,
    mcp: McpOption = None,
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Port; 0 takes a free one.")] = 9000,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            "-H",
            show_default=False,
            help=f"Address to bind [default: {ALL_INTERFACES}; {LOOPBACK} with --local]",
        ),
    ] = None,
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
    local_debug: Annotated[
        bool, typer.Option("--local", "--local-debug", help="Serve this machine only, without a key.")
    ] = False,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            help="Key a trainer must send. Others on this machine can read it in the process list: prefer the "
            "variable OSMOSIS_ROLLOUT_SERVER_API_KEY. Without either, one is generated and shown.",
        ),
    ] = None,
    debug_dir: Annotated[
        str | None, typer.Option("--log", metavar="DIR", help="Write traces to DIR/<unix time of start>/.")
    ] = None,
    journal: Annotated[
        str | None,
        typer.Option(
            "--journal", metavar="PATH|off", help="Where accepted rollouts are kept [default: .osmosis/journal.db]"
        ),
    ] = None,
    fd: Annotated[
        int | None, typer.Option("--fd", metavar="N", min=0, help="Serve on this inherited listening socket.")
    ] = None,
) -> int:
    """Serve an agent loop to a trainer."""
    from pydantic import ValidationError

    from osmosis_ai.rollout.core.validator import AgentLoopValidationError
    from osmosis_ai.rollout.server.serve import ServeError, serve_agent_loop

    agent_loop = load_agent(module, mcp)
    try:
        serve_agent_loop(
            agent_loop,
            host=host or (LOOPBACK if local_debug else ALL_INTERFACES),
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
            log_format=None if log_format is None else log_format.value,
        )
    except AgentLoopValidationError:
        return 1
    except ValidationError as error:
        raise CLIError(_first_bad_setting(error)) from error
    except (ServeError, ImportError) as error:
        raise CLIError(str(error)) from error
    return 0


def _first_bad_setting(error: "ValidationError") -> str:
    from osmosis_ai.rollout.core.settings import RolloutClientSettings, RolloutServerSettings, RolloutSettings

    models = (RolloutClientSettings, RolloutServerSettings, RolloutSettings)
    prefix = next((str(model.model_config.get("env_prefix")) for model in models if model.__name__ == error.title), "")
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = prefix + ("_".join(map(str, first["loc"])).upper() or "*")
    return f"The setting {name} cannot be used: {first['msg']}; correct it in the environment or in .env."
