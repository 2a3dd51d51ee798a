"""The HTTP side of an agent loop."""

import sys
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from osmosis_ai.rollout.server.api_key import (
        generate_api_key as generate_api_key,
        validate_api_key as validate_api_key,
    )
    from osmosis_ai.rollout.server.app import (
        create_app as create_app,
    )
    from osmosis_ai.rollout.server.serve import (
        DEFAULT_HOST as DEFAULT_HOST,
        DEFAULT_PORT as DEFAULT_PORT,
        ServeError as ServeError,
        serve_agent_loop as serve_agent_loop,
        validate_and_report as validate_and_report,
    )
    from osmosis_ai.rollout.server.state import (
        AppState as AppState,
    )

_EXPORTS = {
    "osmosis_ai.rollout.server.api_key": "generate_api_key validate_api_key",
    "osmosis_ai.rollout.server.app": "create_app",
    "osmosis_ai.rollout.server.serve": "DEFAULT_HOST DEFAULT_PORT ServeError serve_agent_loop validate_and_report",
    "osmosis_ai.rollout.server.state": "AppState",
}

__all__, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
