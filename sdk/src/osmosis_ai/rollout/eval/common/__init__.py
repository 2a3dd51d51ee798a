"""What test mode, eval mode and the trainer share: datasets and the errors of a local run."""

from osmosis_ai.rollout.eval.common.dataset import (
    REQUIRED_COLUMNS,
    DatasetReader,
    DatasetRow,
    dataset_row_to_request,
)
from osmosis_ai.rollout.eval.common.errors import (
    DatasetParseError,
    DatasetValidationError,
    LocalExecutionError,
    ProviderError,
    ToolValidationError,
)

__all__ = [
    "REQUIRED_COLUMNS",
    "DatasetParseError",
    "DatasetReader",
    "DatasetRow",
    "DatasetValidationError",
    "LocalExecutionError",
    "ProviderError",
    "ToolValidationError",
    "dataset_row_to_request",
]
