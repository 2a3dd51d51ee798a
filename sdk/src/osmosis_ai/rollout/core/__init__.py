"""The vocabulary of a rollout: agent loop, context, schemas, errors."""

import sys
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.lazy import lazy_exports

if TYPE_CHECKING:  # more than there is, but by no other name or type
    from osmosis_ai.rollout.core.base import *  # noqa: F403 - for type checkers: what its __all__ names
    from osmosis_ai.rollout.core.exceptions import *  # noqa: F403 - for type checkers: what its __all__ names
    from osmosis_ai.rollout.core.llm_client import *  # noqa: F403 - for type checkers: what its __all__ names
    from osmosis_ai.rollout.core.schemas import *  # noqa: F403 - for type checkers: what its __all__ names

_EXPORTS = {
    "osmosis_ai.rollout.core.base": "RolloutAgentLoop RolloutContext RolloutResult",
    "osmosis_ai.rollout.core.exceptions": (
        "AgentLoopNotFoundError JudgeError OsmosisRolloutError OsmosisServerError OsmosisTimeoutError "
        "OsmosisTransportError OsmosisValidationError RewardError ToolArgumentError ToolExecutionError"
    ),
    "osmosis_ai.rollout.core.llm_client": "LLMClientProtocol",
    "osmosis_ai.rollout.core.schemas": (
        "DEFAULT_MAX_METADATA_SIZE_BYTES CompletionsChoice CompletionsRequest CompletionsResponse CompletionUsage "
        "InitResponse MessageDict OpenAIFunctionCallSchema OpenAIFunctionParametersSchema OpenAIFunctionParsedSchema "
        "OpenAIFunctionPropertySchema OpenAIFunctionSchema OpenAIFunctionToolCall OpenAIFunctionToolSchema "
        "RolloutMetrics RolloutRequest RolloutResponse RolloutStatus SamplingParamsDict ToolResponse "
        "get_max_metadata_size_bytes set_max_metadata_size_bytes"
    ),
}

__all__, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
