"""The import paths of 0.2.11 for what is now ``osmosis_ai.rollout.eval``. Spec: test-and-eval.md, section 12."""

import sys
from typing import TYPE_CHECKING

from osmosis_ai._lazy import lazy_exports

if TYPE_CHECKING:
    from osmosis_ai.rollout.test_mode.dataset import (
        REQUIRED_COLUMNS as REQUIRED_COLUMNS,
        DatasetReader as DatasetReader,
        DatasetRow as DatasetRow,
        dataset_row_to_request as dataset_row_to_request,
    )
    from osmosis_ai.rollout.test_mode.exceptions import (
        DatasetParseError as DatasetParseError,
        DatasetValidationError as DatasetValidationError,
        ProviderError as ProviderError,
        TestModeError as TestModeError,
        ToolValidationError as ToolValidationError,
    )
    from osmosis_ai.rollout.test_mode.external_llm_client import ExternalLLMClient as ExternalLLMClient
    from osmosis_ai.rollout.test_mode.interactive import (
        InteractiveLLMClient as InteractiveLLMClient,
        InteractiveRunner as InteractiveRunner,
        InteractiveStep as InteractiveStep,
    )
    from osmosis_ai.rollout.test_mode.runner import (
        LocalTestBatchResult as LocalTestBatchResult,
        LocalTestRunner as LocalTestRunner,
        LocalTestRunResult as LocalTestRunResult,
    )

_EXPORTS = {
    "dataset": ("REQUIRED_COLUMNS", "DatasetReader", "DatasetRow", "dataset_row_to_request"),
    "exceptions": (
        "DatasetParseError",
        "DatasetValidationError",
        "ProviderError",
        "TestModeError",
        "ToolValidationError",
    ),
    "external_llm_client": ("ExternalLLMClient",),
    "interactive": ("InteractiveLLMClient", "InteractiveRunner", "InteractiveStep"),
    "runner": ("LocalTestBatchResult", "LocalTestRunResult", "LocalTestRunner"),
}

__all__, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
