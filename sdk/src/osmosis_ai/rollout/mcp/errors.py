"""The error of the MCP tools."""

from osmosis_ai.rollout.core.user_errors import CLIError


class MCPLoadError(CLIError):
    """A directory of MCP tools cannot be used; one sentence that says why, where, and what to do."""
