"""The agent loop that a command line names."""

from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.user_errors import UsageError

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.base import RolloutAgentLoop


def naming_problem(module: str | None, mcp: str | None) -> str | None:
    """What is wrong if both or neither is given."""
    if module and mcp:
        return "--module and --mcp are mutually exclusive: give one of them."
    if not module and not mcp:
        return "An agent is required: give --module (-m) module:attribute, or --mcp DIR."
    return None


def load_agent(module: str | None, mcp: str | None) -> "RolloutAgentLoop":
    """The agent loop that ``--module`` names, or the one over the MCP tools in the folder of ``--mcp``.

    Raises:
        UsageError: both or neither is given, or ``module`` is not of the form ``module:attribute``.
        CLIError: it cannot be loaded.
    """
    if problem := naming_problem(module, mcp):
        raise UsageError(problem)
    if mcp:
        from osmosis_ai.rollout.mcp.agent_loop import load_mcp_agent

        return load_mcp_agent(mcp)
    from osmosis_ai.rollout.core.loading import load_agent_loop

    return load_agent_loop(module or "")
