"""``osmosis test``: an agent on a dataset, against any model, without a trainer. Names load on first use."""

import sys
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from osmosis_ai.rollout.run.errors import ProviderError as ProviderError
    from osmosis_ai.rollout.run.models.llm_client import ExternalLLMClient as ExternalLLMClient
    from osmosis_ai.rollout.run.test.interactive import (
        InteractiveLLMClient as InteractiveLLMClient,
        InteractiveRunner as InteractiveRunner,
        InteractiveStep as InteractiveStep,
    )
    from osmosis_ai.rollout.run.test.local_test_runner import (
        LocalTestBatchResult as LocalTestBatchResult,
        LocalTestRunner as LocalTestRunner,
        LocalTestRunResult as LocalTestRunResult,
    )

_EXPORTS = {
    "osmosis_ai.rollout.run.errors": "ProviderError",
    "osmosis_ai.rollout.run.models.llm_client": "ExternalLLMClient",
    "osmosis_ai.rollout.run.test.interactive": "InteractiveLLMClient InteractiveRunner InteractiveStep",
    "osmosis_ai.rollout.run.test.local_test_runner": "LocalTestBatchResult LocalTestRunner LocalTestRunResult",
}

__all__, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
