"""``osmosis test``: an agent on a dataset, against any model, without a trainer. Names load on first use."""

import sys
from typing import TYPE_CHECKING

from osmosis_ai._lazy import lazy_exports

if TYPE_CHECKING:
    from osmosis_ai.rollout.eval.common.errors import ProviderError as ProviderError
    from osmosis_ai.rollout.eval.common.llm_client import ExternalLLMClient as ExternalLLMClient
    from osmosis_ai.rollout.eval.test_mode.interactive import (
        InteractiveLLMClient as InteractiveLLMClient,
        InteractiveRunner as InteractiveRunner,
        InteractiveStep as InteractiveStep,
    )
    from osmosis_ai.rollout.eval.test_mode.runner import (
        LocalTestBatchResult as LocalTestBatchResult,
        LocalTestRunner as LocalTestRunner,
        LocalTestRunResult as LocalTestRunResult,
    )

_EXPORTS = {
    "interactive": ("InteractiveLLMClient", "InteractiveRunner", "InteractiveStep"),
    "runner": (
        "ExternalLLMClient",
        "LocalTestBatchResult",
        "LocalTestRunResult",
        "LocalTestRunner",
        "ProviderError",
    ),
}

__all__, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
