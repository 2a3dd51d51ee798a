"""An agent out of a directory of MCP tools; importable without fastmcp."""

import sys
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from osmosis_ai.rollout.mcp.agent_loop import MCPAgentLoop as MCPAgentLoop
    from osmosis_ai.rollout.mcp.loader import (
        MCPLoadError as MCPLoadError,
        load_mcp_server as load_mcp_server,
    )

_EXPORTS = {
    "osmosis_ai.rollout.mcp.agent_loop": "MCPAgentLoop",
    "osmosis_ai.rollout.mcp.loader": "MCPLoadError load_mcp_server",
}

__all__, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
