"""Serving an agent loop from this process until it is told to stop. See ``docs/operations.md``.

Order: what can be refused is refused before the port is bound, and the banner appears after.
"""

import logging
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.consts import WHILE_STDIN_IS_OPEN_VARIABLE
from osmosis_ai.rollout.core.dotenv import variable
from osmosis_ai.rollout.core.settings import JOURNAL_OFF, RolloutSettings, get_settings
from osmosis_ai.rollout.core.trace.folder import TRACES_VARIABLE
from osmosis_ai.rollout.core.validator import validate_agent_loop
from osmosis_ai.rollout.mcp.remote import absolute_place, is_url
from osmosis_ai.rollout.observe.logs import log_config
from osmosis_ai.rollout.server.app import create_app
from osmosis_ai.rollout.server.banner import Banner
from osmosis_ai.rollout.server.plan import PLAN_VARIABLE, Plan, import_string_of
from osmosis_ai.rollout.server.process import end_with_parent
from osmosis_ai.rollout.server.startup import (
    ServeError,
    ServeUsageError,
    bind,
    choose_key,
    inherit,
    new_trace_folder,
    require_usable_journal,
    settings_for,
)
from osmosis_ai.rollout.server.validation_report import print_for_trainer, print_report, validate_and_report
from osmosis_ai.rollout.server.workers import Supervisor
from osmosis_ai.rollout.wire.addresses import all_interfaces
from osmosis_ai.rollout.wire.channels import check_certificates

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["DEFAULT_HOST", "DEFAULT_PORT", "ServeError", "run_app", "serve_agent_loop", "validate_and_report"]

logger = logging.getLogger(__name__)

DEFAULT_HOST = "0.0.0.0"  # noqa: S104 - a rollout server is called from other machines, and asks for a key
DEFAULT_PORT = 9000
HOST_VARIABLE, PORT_VARIABLE = "ROLLOUT_SERVER_HOST", "ROLLOUT_SERVER_PORT"

GRACEFUL_SHUTDOWN_SECONDS = 5


def serve_agent_loop(
    agent_loop: RolloutAgentLoop,
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    validate: bool = True,
    log_level: str = "info",
    reload: bool = False,
    workers: int = 1,
    settings: RolloutSettings | None = None,
    skip_register: bool = False,
    api_key: str | None = None,
    local_debug: bool = False,
    debug_dir: str | None = None,
    journal: str | None = None,
    fd: int | None = None,
    module_path: str | None = None,
    mcp_path: str | None = None,
    mcp_reward: str | None = None,
    log_format: Literal["text", "json"] | None = None,
    as_json: bool = False,
) -> None:
    """Serve until SIGTERM, Ctrl-C or SIGHUP; blocks.

    Args:
        port: 0 takes a free one.
        reload: restart when a Python file below the current directory changes.
        workers: processes that share the port and the journal; each has its part of the limits on rollouts.
        skip_register: registration is not available either way; kept for compatibility.
        api_key: the key a trainer must send; ``None`` takes the setting, or else generates one and shows it once.
        local_debug: serve without a key. Bind a loopback ``host`` with it.
        debug_dir: traces go to ``<debug_dir>/<unix time of start>/``; ``None`` takes ``ROLLOUT_DEBUG_DIR``, else none.
        journal: path of the journal, URL of a PostgreSQL, or ``off``; ``None`` takes the setting, or else
            ``.osmosis/journal.db``.
        fd: an inherited listening socket, in place of ``host`` and ``port``.
        module_path: ``module:attribute`` of the agent loop, for ``reload`` and ``workers``; found by itself for an
            object of a module.
        mcp_path: the folder that the agent loop was made of, for ``reload`` and ``workers``.
        mcp_reward: its reward function, as ``module:attribute``.
        log_format: of all log lines; ``None`` takes the setting.
        as_json: print one line of JSON in place of the banner, and leave a report of what is invalid to the caller.

    Raises:
        ImportError: FastAPI or uvicorn is not installed.
        ServeError: the arguments contradict each other, or the address, the journal, ``debug_dir`` or ``SSL_CERT_FILE``
            cannot be used, no worker could serve, or one had to be killed at the end.
        AgentLoopValidationError: the agent loop is invalid; the report has been printed.
    """
    for package in ("FastAPI", "uvicorn"):
        if find_spec(package.lower()) is None:
            raise ImportError(f"{package} is required to serve an agent loop: pip install osmosis-ai[server].")
    if local_debug and api_key is not None:
        raise ServeUsageError(
            "local_debug=True disables API key authentication: leave out the api_key, or local_debug."
        )
    if not 0 <= port <= 65535:
        raise ServeUsageError(f"Port {port} is out of range: choose one from 0 to 65535.")
    if workers < 1:
        raise ServeUsageError(f"{workers} workers cannot serve: give 1 or more.")
    if reload and workers > 1:
        raise ServeUsageError("reload restarts one process: leave out reload, or workers.")
    # Of a trainer's own server nobody reads a banner: its standard output is what the agent prints.
    is_ours = bool(os.environ.get(WHILE_STDIN_IS_OPEN_VARIABLE))
    tool_count, warnings = None, []
    if validate:
        result = validate_agent_loop(agent_loop)
        if not as_json:
            (print_for_trainer if is_ours else print_report)(result)
        result.raise_if_invalid()
        tool_count, warnings = result.tool_count, [str(one) for one in result.warnings]
    settings = settings or get_settings()
    key = choose_key(settings, api_key, local_debug)
    settings = settings_for(settings, key, journal, reload, log_format)
    if workers > 1 and settings.server.journal == JOURNAL_OFF:
        raise ServeUsageError(
            "Several workers know of each other's rollouts by their journal: name one, or start one worker."
        )
    try:
        check_certificates()
    except ValueError as error:
        raise ServeError(str(error)) from error
    require_usable_journal(settings.server.journal)
    listener = inherit(fd) if fd is not None else bind(host, port)
    bound_host, bound_port = listener.getsockname()[:2]
    host, port = (bound_host if fd is not None else host), bound_port
    debug_dir = debug_dir or variable(TRACES_VARIABLE)
    traces = new_trace_folder(debug_dir) if debug_dir else None
    registration: Literal["local debug", "local testing"] | None = None
    if local_debug or skip_register:
        registration = "local debug" if local_debug else "local testing"
    place = settings.server.journal
    banner = Banner(agent_loop.name, tool_count, host, port, key, place, traces, workers, registration, warnings)
    if as_json:
        banner.print_json()
    elif not is_ours:
        banner.print()
    if local_debug and all_interfaces(host):
        logger.warning("Serving without a key on every interface: anyone who reaches port %d can use it.", port)
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "log_level": log_level,
        "log_config": log_config(settings.server.log_format),
        "timeout_graceful_shutdown": GRACEFUL_SHUTDOWN_SECONDS,
    }
    if is_ours:
        end_with_parent()
    with listener:
        if reload or workers > 1:
            path = "" if mcp_path is not None else module_path or import_string_of(agent_loop)
            plan = Plan(path, traces, settings, mcp_path and absolute_place(mcp_path), mcp_reward)
        if reload:
            _run_reloading(plan, listener, options)
        elif workers > 1:
            if problem := Supervisor(plan, workers, listener, options).run():
                raise ServeError(problem)
        else:
            import uvicorn

            app = create_app(agent_loop, settings=settings, server_host=host, server_port=port, debug_dir=traces)
            server = uvicorn.Server(uvicorn.Config(app, **options))
            server.run(sockets=[listener])
            if server.config.loaded and not server.started:  # its log says why
                sys.exit(3)  # as uvicorn's own command


def _run_reloading(plan: Plan, listener: socket.socket, options: dict[str, Any]) -> None:
    """A supervisor that starts the server anew whenever a Python file changes; a broken one gets its next chance."""
    import uvicorn
    from uvicorn.supervisors import ChangeReload

    os.environ[PLAN_VARIABLE] = plan.to_json()
    if plan.mcp_path is not None and not is_url(plan.mcp_path):
        options = {**options, "reload_dirs": [str(Path.cwd()), plan.mcp_path]}
    config = uvicorn.Config(f"{Plan.__module__}:app", factory=True, reload=True, **options)
    ChangeReload(config, target=uvicorn.Server(config).run, sockets=[listener]).run()


def run_app(app: "FastAPI") -> None:
    """Serve ``app``, which ``create_app`` made, until SIGTERM or Ctrl-C; blocks.

    It listens at ``ROLLOUT_SERVER_HOST`` (default every interface) and ``ROLLOUT_SERVER_PORT`` (default 9000; 0 takes a
    free one).

    Raises:
        SystemExit: it cannot listen there; one sentence says so.
    """
    import uvicorn

    host, port = variable(HOST_VARIABLE) or DEFAULT_HOST, variable(PORT_VARIABLE) or str(DEFAULT_PORT)
    if not port.isdecimal() or int(port) > 65535:
        sys.exit(f"{PORT_VARIABLE} must be a port number, not {port!r}.")
    try:
        bind(host, int(port), f"{HOST_VARIABLE} and {PORT_VARIABLE}").close()
    except ServeError as error:
        sys.exit(str(error))
    uvicorn.run(app, host=host, port=int(port))
