"""The errors of ``osmosis_ai.rollout.test_mode``, whose base was called ``TestModeError``."""

from osmosis_ai.rollout.run.errors import (
    DatasetParseError,
    DatasetValidationError,
    LocalExecutionError as TestModeError,
    ProviderError,
    ToolValidationError,
)

__all__ = ["DatasetParseError", "DatasetValidationError", "ProviderError", "TestModeError", "ToolValidationError"]
