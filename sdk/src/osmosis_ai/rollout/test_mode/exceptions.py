"""Alias of ``osmosis_ai.rollout.eval.common.errors``; the base was called ``TestModeError``."""

from osmosis_ai.rollout.eval.common.errors import (
    DatasetParseError,
    DatasetValidationError,
    LocalExecutionError as TestModeError,
    ProviderError,
    ToolValidationError,
)

__all__ = ["DatasetParseError", "DatasetValidationError", "ProviderError", "TestModeError", "ToolValidationError"]
