"""Running an agent over a dataset: data, models, one driver; test, eval, trainer. Names load on first use."""

import sys
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from osmosis_ai.rollout.run.data.dataset import (
        REQUIRED_COLUMNS as REQUIRED_COLUMNS,
        DatasetReader as DatasetReader,
        DatasetRow as DatasetRow,
        dataset_row_to_request as dataset_row_to_request,
    )
    from osmosis_ai.rollout.run.errors import (
        DatasetParseError as DatasetParseError,
        DatasetValidationError as DatasetValidationError,
        LocalExecutionError as LocalExecutionError,
        ProviderError as ProviderError,
        ToolValidationError as ToolValidationError,
    )
    from osmosis_ai.rollout.run.local_runner import (
        LocalBatchResult as LocalBatchResult,
        LocalLLMClientProtocol as LocalLLMClientProtocol,
        LocalRolloutRunner as LocalRolloutRunner,
        LocalRunResult as LocalRunResult,
        validate_tools as validate_tools,
    )
    from osmosis_ai.rollout.run.models.llm_client import ExternalLLMClient as ExternalLLMClient

_EXPORTS = {
    "osmosis_ai.rollout.run.data.dataset": "REQUIRED_COLUMNS DatasetReader DatasetRow dataset_row_to_request",
    "osmosis_ai.rollout.run.errors": (
        "DatasetParseError DatasetValidationError LocalExecutionError ProviderError ToolValidationError"
    ),
    "osmosis_ai.rollout.run.models.llm_client": "ExternalLLMClient",
    "osmosis_ai.rollout.run.local_runner": (
        "LocalBatchResult LocalLLMClientProtocol LocalRolloutRunner LocalRunResult validate_tools"
    ),
}

__all__, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
