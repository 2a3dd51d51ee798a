"""Everything an agent author needs; each name is imported on first use."""

import sys
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core import _EXPORTS as CORE_EXPORTS
from osmosis_ai.rollout.core.lazy import lazy_exports
from osmosis_ai.rollout.wire.quick_httpx import leave_out_command_line

if TYPE_CHECKING:
    from osmosis_ai._compat.network import (
        PublicIPDetectionError as PublicIPDetectionError,
        detect_public_ip as detect_public_ip,
        is_private_ip as is_private_ip,
        is_valid_hostname_or_ip as is_valid_hostname_or_ip,
        validate_ipv4 as validate_ipv4,
    )
    from osmosis_ai._compat.registry import (
        AgentLoopRegistry as AgentLoopRegistry,
        get_agent_loop as get_agent_loop,
        list_agent_loops as list_agent_loops,
        register_agent_loop as register_agent_loop,
        unregister_agent_loop as unregister_agent_loop,
    )
    from osmosis_ai.rollout.core.answers import (
        final_number as final_number,
        is_close as is_close,
        is_comparable as is_comparable,
        is_right as is_right,
        read_number as read_number,
    )
    from osmosis_ai.rollout.core.base import (
        RolloutAgentLoop as RolloutAgentLoop,
        RolloutContext as RolloutContext,
        RolloutResult as RolloutResult,
    )
    from osmosis_ai.rollout.core.exceptions import (
        AgentLoopNotFoundError as AgentLoopNotFoundError,
        JudgeError as JudgeError,
        OsmosisRolloutError as OsmosisRolloutError,
        OsmosisServerError as OsmosisServerError,
        OsmosisTimeoutError as OsmosisTimeoutError,
        OsmosisTransportError as OsmosisTransportError,
        OsmosisValidationError as OsmosisValidationError,
        RewardError as RewardError,
        ToolArgumentError as ToolArgumentError,
        ToolExecutionError as ToolExecutionError,
    )
    from osmosis_ai.rollout.core.framework_tools import tools_of as tools_of
    from osmosis_ai.rollout.core.judge import Judge as Judge
    from osmosis_ai.rollout.core.llm_client import (
        LLMClientProtocol as LLMClientProtocol,
    )
    from osmosis_ai.rollout.core.messages import (
        count_messages_by_role as count_messages_by_role,
        get_message_content as get_message_content,
        get_message_role as get_message_role,
        is_assistant_message as is_assistant_message,
        is_tool_message as is_tool_message,
        is_user_message as is_user_message,
        normalize_stop as normalize_stop,
        parse_tool_calls as parse_tool_calls,
        summarize as summarize,
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
    from osmosis_ai.rollout.core.settings import (
        RolloutClientSettings as RolloutClientSettings,
        RolloutJudgeSettings as RolloutJudgeSettings,
        RolloutServerSettings as RolloutServerSettings,
        RolloutSettings as RolloutSettings,
        configure as configure,
        get_settings as get_settings,
        reset_settings as reset_settings,
    )
    from osmosis_ai.rollout.core.tool_arguments import (
        EXACT as EXACT,
    )
    from osmosis_ai.rollout.core.toolbox import (
        Toolbox as Toolbox,
        tool as tool,
    )
    from osmosis_ai.rollout.core.tools import (
        create_tool_error_result as create_tool_error_result,
        create_tool_result as create_tool_result,
        execute_tool_calls as execute_tool_calls,
        get_tool_call_info as get_tool_call_info,
        parse_tool_arguments as parse_tool_arguments,
        serialize_tool_result as serialize_tool_result,
    )
    from osmosis_ai.rollout.core.validator import (
        AgentLoopValidationError as AgentLoopValidationError,
        ValidationError as ValidationError,
        ValidationResult as ValidationResult,
        validate_agent_loop as validate_agent_loop,
    )
    from osmosis_ai.rollout.server.app import (
        create_app as create_app,
    )
    from osmosis_ai.rollout.server.serve import (
        DEFAULT_HOST as DEFAULT_HOST,
        DEFAULT_PORT as DEFAULT_PORT,
        ServeError as ServeError,
        run_app as run_app,
        serve_agent_loop as serve_agent_loop,
        validate_and_report as validate_and_report,
    )
    from osmosis_ai.rollout.wire.client import (
        CompletionsResult as CompletionsResult,
        OsmosisLLMClient as OsmosisLLMClient,
    )

_EXPORTS = {
    **CORE_EXPORTS,
    "osmosis_ai._compat.network": (
        "PublicIPDetectionError detect_public_ip is_private_ip is_valid_hostname_or_ip validate_ipv4"
    ),
    "osmosis_ai._compat.registry": (
        "AgentLoopRegistry get_agent_loop list_agent_loops register_agent_loop unregister_agent_loop"
    ),
    "osmosis_ai.rollout.core.answers": "final_number is_close is_comparable is_right read_number",
    "osmosis_ai.rollout.core.framework_tools": "tools_of",
    "osmosis_ai.rollout.core.judge": "Judge",
    "osmosis_ai.rollout.core.messages": (
        "count_messages_by_role get_message_content get_message_role is_assistant_message is_tool_message "
        "is_user_message normalize_stop parse_tool_calls summarize"
    ),
    "osmosis_ai.rollout.core.settings": (
        "RolloutClientSettings RolloutJudgeSettings RolloutServerSettings RolloutSettings configure get_settings "
        "reset_settings"
    ),
    "osmosis_ai.rollout.core.tool_arguments": "EXACT",
    "osmosis_ai.rollout.core.toolbox": "Toolbox tool",
    "osmosis_ai.rollout.core.tools": (
        "create_tool_error_result create_tool_result execute_tool_calls get_tool_call_info parse_tool_arguments "
        "serialize_tool_result"
    ),
    "osmosis_ai.rollout.core.validator": (
        "AgentLoopValidationError ValidationError ValidationResult validate_agent_loop"
    ),
    "osmosis_ai.rollout.server.app": "create_app",
    "osmosis_ai.rollout.server.serve": (
        "DEFAULT_HOST DEFAULT_PORT ServeError run_app serve_agent_loop validate_and_report"
    ),
    "osmosis_ai.rollout.wire.client": "CompletionsResult OsmosisLLMClient",
}

leave_out_command_line()

__all__, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
