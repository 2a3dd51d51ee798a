"""``--reload``: a supervisor process that starts the server anew whenever a Python file changes.

uvicorn restarts an app it can import, so the child process imports ``app`` here, which rebuilds the server from the
plan its parent left in the environment.
"""

import json
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.cli_utils import CLIError, load_agent_loop
from osmosis_ai.rollout.config.settings import RolloutClientSettings, RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.mcp.errors import MCPLoadError

if TYPE_CHECKING:
    from fastapi import FastAPI

PLAN_VARIABLE = "_OSMOSIS_RELOAD_PLAN"


@dataclass(frozen=True)
class Plan:
    """What the child needs to serve as its parent was asked to."""

    module_path: str
    trace_folder: str | None
    settings: RolloutSettings
    mcp_path: str | None = None
    """The folder of the MCP tools to serve, in place of ``module_path``."""

    def to_json(self) -> str:
        """As JSON text; it holds the server's keys, and goes nowhere but to the child's environment."""
        settings = self.settings.model_dump(mode="json")
        for name in ("api_key", "metrics_key"):
            key = getattr(self.settings.server, name)
            settings["server"][name] = key.get_secret_value() if key is not None else None
        return json.dumps([self.module_path, self.trace_folder, settings, self.mcp_path])

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The inverse of ``to_json``."""
        module_path, trace_folder, fields, mcp_path = json.loads(text)
        fields["client"] = RolloutClientSettings(**fields["client"])
        fields["server"] = RolloutServerSettings(**fields["server"])
        return cls(module_path, trace_folder, RolloutSettings(**fields), mcp_path)


def run(plan: Plan, listener: socket.socket, options: dict[str, Any]) -> None:
    """Serve on ``listener`` until told to stop; ``options`` are uvicorn's."""
    import uvicorn
    from uvicorn.supervisors import ChangeReload

    os.environ[PLAN_VARIABLE] = plan.to_json()
    if plan.mcp_path is not None:
        options = {**options, "reload_dirs": [str(Path.cwd()), plan.mcp_path]}
    config = uvicorn.Config(f"{__name__}:app", factory=True, reload=True, **options)
    ChangeReload(config, target=uvicorn.Server(config).run, sockets=[listener]).run()


def app() -> "FastAPI":
    """The child's application.

    A broken module ends this child with one sentence; the supervisor stays, and the next change tries again.
    """
    from osmosis_ai.rollout.server.app import create_app

    plan = Plan.from_json(os.environ[PLAN_VARIABLE])
    try:
        agent_loop = _load(plan)
    except (CLIError, MCPLoadError) as error:
        sys.exit(f"Error: {error}")
    return create_app(agent_loop, settings=plan.settings, debug_dir=plan.trace_folder)


def _load(plan: Plan) -> RolloutAgentLoop:
    if plan.mcp_path is None:
        return load_agent_loop(plan.module_path)
    from osmosis_ai.rollout.mcp.agent_loop import load_mcp_agent

    return load_mcp_agent(plan.mcp_path)


def import_string_of(agent_loop: RolloutAgentLoop) -> str:
    """``module:attribute`` of a module-level agent loop.

    Raises:
        CLIError: no imported module holds the object.
    """
    for name, module in list(sys.modules.items()):
        if name == "__main__":
            continue
        for attribute, value in list(vars(module).items()):
            if value is agent_loop:
                return f"{name}:{attribute}"
    raise CLIError(
        "reload=True needs an agent loop that can be imported again: keep it in a module-level variable of a module "
        "other than the script that is run, or give module_path='module:attribute'."
    )
