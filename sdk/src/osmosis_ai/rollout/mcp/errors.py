"""The error of the MCP tools."""


class MCPLoadError(Exception):
    """A directory of MCP tools cannot be used; one sentence that says why, where, and what to do."""
