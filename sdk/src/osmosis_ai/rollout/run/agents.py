"""The agent loop that a command line names."""

from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.loading import load_agent_loop, split_name
from osmosis_ai.rollout.core.user_errors import UsageError

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.base import RolloutAgentLoop


def check_naming(module: str | None, mcp: str | None, reward: str | None = None, *, is_required: bool = True) -> None:
    """See that an agent is named in one way, and rightly; nothing is imported.

    Raises:
        UsageError: both or, if one ``is_required``, neither is given; one names nothing that can be there.
    """
    if module and mcp:
        raise UsageError("--module and --mcp are mutually exclusive: give one of them.")
    if reward is not None and mcp is None:
        raise UsageError("--reward goes with --mcp: an agent of --module scores its answers itself.")
    if reward is not None:
        split_name(reward)
    if module:
        split_name(module)
    elif mcp is not None:
        from osmosis_ai.rollout.mcp.loader import find_mcp_server
        from osmosis_ai.rollout.mcp.remote import check_url, is_url

        (check_url if is_url(mcp) else find_mcp_server)(mcp)
    elif is_required or module is not None:
        raise UsageError("An agent is required: give --module (-m) module:attribute, or --mcp DIR|URL.")


def load_agent(module: str | None, mcp: str | None, reward: str | None = None) -> "RolloutAgentLoop":
    """The agent loop that ``--module`` names, or the one over the MCP tools of ``--mcp``, a folder or a URL.

    ``reward`` names the function that scores the answers of the latter.

    Raises:
        UsageError: both or neither is given, or ``module`` is not of the form ``module:attribute``.
        CLIError: it cannot be loaded.
    """
    check_naming(module, mcp, reward)
    if mcp:
        from osmosis_ai.rollout.mcp.agent_loop import load_mcp_agent

        return load_mcp_agent(mcp, reward)
    return load_agent_loop(module or "")
