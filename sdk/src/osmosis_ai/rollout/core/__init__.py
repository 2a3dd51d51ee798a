"""The vocabulary of a rollout: agent loop, context, schemas, errors."""

import sys
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.base import (
        RolloutAgentLoop as RolloutAgentLoop,
        RolloutContext as RolloutContext,
        RolloutResult as RolloutResult,
    )
    from osmosis_ai.rollout.core.exceptions import (
        AgentLoopNotFoundError as AgentLoopNotFoundError,
        OsmosisRolloutError as OsmosisRolloutError,
        OsmosisServerError as OsmosisServerError,
        OsmosisTimeoutError as OsmosisTimeoutError,
        OsmosisTransportError as OsmosisTransportError,
        OsmosisValidationError as OsmosisValidationError,
        ToolArgumentError as ToolArgumentError,
        ToolExecutionError as ToolExecutionError,
    )
    from osmosis_ai.rollout.core.llm_client import (
        LLMClientProtocol as LLMClientProtocol,
    )
    from osmosis_ai.rollout.core.schemas import (
        DEFAULT_MAX_METADATA_SIZE_BYTES as DEFAULT_MAX_METADATA_SIZE_BYTES,
        CompletionsChoice as CompletionsChoice,
        CompletionsRequest as CompletionsRequest,
        CompletionsResponse as CompletionsResponse,
        CompletionUsage as CompletionUsage,
        InitResponse as InitResponse,
        MessageDict as MessageDict,
        OpenAIFunctionCallSchema as OpenAIFunctionCallSchema,
        OpenAIFunctionParametersSchema as OpenAIFunctionParametersSchema,
        OpenAIFunctionParsedSchema as OpenAIFunctionParsedSchema,
        OpenAIFunctionPropertySchema as OpenAIFunctionPropertySchema,
        OpenAIFunctionSchema as OpenAIFunctionSchema,
        OpenAIFunctionToolCall as OpenAIFunctionToolCall,
        OpenAIFunctionToolSchema as OpenAIFunctionToolSchema,
        RolloutMetrics as RolloutMetrics,
        RolloutRequest as RolloutRequest,
        RolloutResponse as RolloutResponse,
        RolloutStatus as RolloutStatus,
        SamplingParamsDict as SamplingParamsDict,
        ToolResponse as ToolResponse,
        get_max_metadata_size_bytes as get_max_metadata_size_bytes,
        set_max_metadata_size_bytes as set_max_metadata_size_bytes,
    )

_EXPORTS = {
    "osmosis_ai.rollout.core.base": "RolloutAgentLoop RolloutContext RolloutResult",
    "osmosis_ai.rollout.core.exceptions": (
        "AgentLoopNotFoundError OsmosisRolloutError OsmosisServerError OsmosisTimeoutError OsmosisTransportError "
        "OsmosisValidationError ToolArgumentError ToolExecutionError"
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
