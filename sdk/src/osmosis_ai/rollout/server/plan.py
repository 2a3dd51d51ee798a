"""What a child process needs to serve as its parent was asked to: for ``--reload`` and ``--workers``."""

import json
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.loading import load_agent_loop
from osmosis_ai.rollout.core.settings import RolloutClientSettings, RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.core.user_errors import CLIError

if TYPE_CHECKING:
    from fastapi import FastAPI

PLAN_VARIABLE = "_OSMOSIS_SERVE_PLAN"


@dataclass(frozen=True)
class Plan:
    """The agent, the traces and the settings, under which all children serve alike."""

    module_path: str
    trace_folder: str | None
    settings: RolloutSettings
    mcp_path: str | None = None
    """The folder of the MCP tools to serve, in place of ``module_path``."""
    mcp_reward: str | None = None
    """The function that scores the answers then, as ``module:attribute``."""
    options: dict[str, Any] = field(default_factory=dict)
    """uvicorn's, as JSON."""

    def to_json(self) -> str:
        """As JSON text; it holds the server's keys, and goes nowhere but to the child's environment."""
        # What was not set stays unset: the child reads the same environment, and defaults may depend on each other.
        settings = self.settings.model_dump(mode="json", exclude_unset=True, exclude={"judge"}) | {
            "client": self.settings.client.model_dump(mode="json", exclude_unset=True),
            "server": self.settings.server.model_dump(mode="json", exclude_unset=True),
        }
        for name in ("api_key", "metrics_key"):
            key = getattr(self.settings.server, name)
            settings["server"][name] = key.get_secret_value() if key is not None else None
        agent = [self.module_path, self.mcp_path, self.mcp_reward]
        return json.dumps([*agent, self.trace_folder, settings, self.options])

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The inverse of ``to_json``."""
        module_path, mcp_path, mcp_reward, trace_folder, fields, options = json.loads(text)
        fields["client"] = RolloutClientSettings(**fields["client"])
        fields["server"] = RolloutServerSettings(**fields["server"])
        return cls(module_path, trace_folder, RolloutSettings(**fields), mcp_path, mcp_reward, options)

    @classmethod
    def from_environment(cls) -> "Plan":
        """The plan that the parent process has left; taken out, as programs that the agent starts have no use for it.

        Raises:
            KeyError: there is none.
        """
        return cls.from_json(os.environ.pop(PLAN_VARIABLE))

    def app(self) -> "FastAPI":
        """The application. An agent that cannot be loaded ends this process with one sentence."""
        from osmosis_ai.rollout.server.app import create_app

        try:
            agent_loop = _load(self)
        except CLIError as error:
            sys.exit(f"Error: {error}")
        return create_app(
            agent_loop, settings=self.settings, debug_dir=self.trace_folder, server_host=self.options.get("host")
        )


def app() -> "FastAPI":
    """The application of a child, as uvicorn's reloader imports it; a broken module ends that child alone."""
    return Plan.from_environment().app()


def _load(plan: Plan) -> RolloutAgentLoop:
    if plan.mcp_path is None:
        return load_agent_loop(plan.module_path)
    from osmosis_ai.rollout.mcp.agent_loop import load_mcp_agent

    return load_mcp_agent(plan.mcp_path, plan.mcp_reward)


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
        "reload and workers need an agent loop that can be imported again: keep it in a module-level variable of a "
        "module other than the script that is run, or give module_path='module:attribute'."
    )
