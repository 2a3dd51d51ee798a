"""Alias of ``osmosis_ai.rollout.eval.common.dataset``."""

from osmosis_ai.rollout.eval.common.dataset import (
    REQUIRED_COLUMNS,
    DatasetReader,
    DatasetRow,
    dataset_row_to_request,
)

__all__ = ["REQUIRED_COLUMNS", "DatasetReader", "DatasetRow", "dataset_row_to_request"]
