"""Options that several commands share, and the agent loop they name."""

from typing import TYPE_CHECKING, Annotated

import typer

from osmosis_ai.rollout.core.user_errors import CLIError, UsageError

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.base import RolloutAgentLoop

ModuleOption = Annotated[
    str | None,
    typer.Option("--module", "-m", metavar="MODULE:ATTR", help="The agent loop, such as server:agent_loop."),
]
McpOption = Annotated[
    str | None,
    typer.Option("--mcp", metavar="DIR", help="In place of an agent loop: offer the MCP tools of DIR/main.py."),
]

CallbackHostOption = Annotated[str, typer.Option("--host", help="Interface that the callbacks are served on.")]
CallbackPortOption = Annotated[
    int, typer.Option("--port", min=0, max=65_535, help="Port of the callbacks; 0 means any free one.")
]
CallbackUrlOption = Annotated[
    str | None, typer.Option("--callback-url", metavar="URL", help="The callbacks' address as the server sees it.")
]


def load_agent(module: str | None, mcp: str | None) -> "RolloutAgentLoop":
    """The agent loop that ``--module`` or ``--mcp`` names.

    Raises:
        UsageError: both or neither is given.
        CLIError: it cannot be loaded.
    """
    if module is not None and mcp is not None:
        raise UsageError("--module and --mcp are mutually exclusive: give one of them.")
    if mcp is not None:
        return load_mcp_directory(mcp)
    if module is None:
        raise UsageError("An agent is required: give --module (-m) module:attribute, or --mcp DIR.")
    from osmosis_ai.rollout.core.loading import load_agent_loop

    return load_agent_loop(module)


def load_mcp_directory(path: str) -> "RolloutAgentLoop":
    """The agent loop over the MCP tools in ``path``.

    Raises:
        CLIError: they cannot be loaded.
    """
    from osmosis_ai.rollout.mcp.agent_loop import MCPLoadError, load_mcp_agent

    try:
        return load_mcp_agent(path)
    except MCPLoadError as error:
        raise CLIError(str(error)) from error
