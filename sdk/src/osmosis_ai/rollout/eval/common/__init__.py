"""What test mode, eval mode and the trainer share: datasets, models, the local runner. Names load on first use."""

import sys
from typing import TYPE_CHECKING

from osmosis_ai._lazy import lazy_exports

if TYPE_CHECKING:
    from osmosis_ai.rollout.eval.common.cli import (
        build_completion_params as build_completion_params,
        create_llm_client as create_llm_client,
        format_duration as format_duration,
        format_tokens as format_tokens,
        load_agent as load_agent,
        load_dataset_rows as load_dataset_rows,
    )
    from osmosis_ai.rollout.eval.common.dataset import (
        REQUIRED_COLUMNS as REQUIRED_COLUMNS,
        DatasetReader as DatasetReader,
        DatasetRow as DatasetRow,
        dataset_row_to_request as dataset_row_to_request,
    )
    from osmosis_ai.rollout.eval.common.errors import (
        DatasetParseError as DatasetParseError,
        DatasetValidationError as DatasetValidationError,
        LocalExecutionError as LocalExecutionError,
        ProviderError as ProviderError,
        ToolValidationError as ToolValidationError,
    )
    from osmosis_ai.rollout.eval.common.llm_client import ExternalLLMClient as ExternalLLMClient
    from osmosis_ai.rollout.eval.common.runner import (
        LocalBatchResult as LocalBatchResult,
        LocalLLMClientProtocol as LocalLLMClientProtocol,
        LocalRolloutRunner as LocalRolloutRunner,
        LocalRunResult as LocalRunResult,
        validate_tools as validate_tools,
    )

_EXPORTS = {
    "cli": (
        "build_completion_params",
        "create_llm_client",
        "format_duration",
        "format_tokens",
        "load_agent",
        "load_dataset_rows",
    ),
    "dataset": ("REQUIRED_COLUMNS", "DatasetReader", "DatasetRow", "dataset_row_to_request"),
    "errors": (
        "DatasetParseError",
        "DatasetValidationError",
        "LocalExecutionError",
        "ProviderError",
        "ToolValidationError",
    ),
    "llm_client": ("ExternalLLMClient",),
    "runner": (
        "LocalBatchResult",
        "LocalLLMClientProtocol",
        "LocalRolloutRunner",
        "LocalRunResult",
        "validate_tools",
    ),
}

__all__, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
