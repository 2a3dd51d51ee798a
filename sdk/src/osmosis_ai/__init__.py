"""The Osmosis SDK, 0.2 line: write an agent loop, serve it to a trainer, try it without one.

Every name is imported on first use.
"""

import sys
from typing import TYPE_CHECKING

from osmosis_ai import _compat
from osmosis_ai.rollout.core import consts
from osmosis_ai.rollout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from osmosis_ai._compat.registry import (
        get_agent_loop as get_agent_loop,
        list_agent_loops as list_agent_loops,
        register_agent_loop as register_agent_loop,
    )
    from osmosis_ai._compat.rubric import *  # noqa: F403 - for type checkers: what its __all__ names
    from osmosis_ai.rollout.core.base import (
        RolloutAgentLoop as RolloutAgentLoop,
        RolloutContext as RolloutContext,
        RolloutResult as RolloutResult,
    )
    from osmosis_ai.rollout.core.exceptions import (
        OsmosisRolloutError as OsmosisRolloutError,
        OsmosisServerError as OsmosisServerError,
        OsmosisTimeoutError as OsmosisTimeoutError,
        OsmosisTransportError as OsmosisTransportError,
        OsmosisValidationError as OsmosisValidationError,
    )
    from osmosis_ai.rollout.core.reward_functions import *  # noqa: F403 - for type checkers: what its __all__ names
    from osmosis_ai.rollout.core.schemas import (
        InitResponse as InitResponse,
        OpenAIFunctionToolSchema as OpenAIFunctionToolSchema,
        RolloutMetrics as RolloutMetrics,
        RolloutRequest as RolloutRequest,
        RolloutResponse as RolloutResponse,
    )
    from osmosis_ai.rollout.server.app import create_app as create_app
    from osmosis_ai.rollout.wire.client import *  # noqa: F403 - for type checkers: what its __all__ names

_EXPORTS = {
    "osmosis_ai._compat.registry": "get_agent_loop list_agent_loops register_agent_loop",
    "osmosis_ai._compat.rubric": "MissingAPIKeyError ModelNotFoundError ProviderRequestError evaluate_rubric",
    "osmosis_ai.rollout.core.base": "RolloutAgentLoop RolloutContext RolloutResult",
    "osmosis_ai.rollout.core.exceptions": (
        "OsmosisRolloutError OsmosisServerError OsmosisTimeoutError OsmosisTransportError OsmosisValidationError"
    ),
    "osmosis_ai.rollout.core.reward_functions": "osmosis_reward osmosis_rubric",
    "osmosis_ai.rollout.core.schemas": (
        "InitResponse OpenAIFunctionToolSchema RolloutMetrics RolloutRequest RolloutResponse"
    ),
    "osmosis_ai.rollout.server.app": "create_app",
    "osmosis_ai.rollout.wire.client": "CompletionsResult OsmosisLLMClient",
}

_compat.install()

__version__ = consts.PACKAGE_VERSION

_names, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
__all__ = ["__version__", *_names]
