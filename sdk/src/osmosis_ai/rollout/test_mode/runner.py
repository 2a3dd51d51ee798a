"""Alias of ``osmosis_ai.rollout.eval.test_mode.runner``."""

from osmosis_ai.rollout.eval.test_mode.runner import (
    LocalTestBatchResult,
    LocalTestRunner,
    LocalTestRunResult,
    validate_tools,
)

__all__ = ["LocalTestBatchResult", "LocalTestRunResult", "LocalTestRunner", "validate_tools"]
