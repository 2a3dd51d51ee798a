"""What a run trains on and what it is measured on: generated problems, or the user's own files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.run.data.dataset import DatasetReader
from training.config import TrainingConfig
from training.errors import TrainingError
from training.problems import Wordings, held_out_rows, training_rows, worked_examples

TRAINING_ROWS = 4000


@dataclass(frozen=True, slots=True)
class Datasets:
    """What is trained on, and what is measured on, by name."""

    training: list[dict[str, Any]]
    held_out: dict[str, list[dict[str, Any]]]
    examples: list[dict[str, Any]]


def read_datasets(config: TrainingConfig) -> Datasets:
    """Generated problems, or the files that the settings name.

    Raises:
        TrainingError: if a file cannot be used.
    """
    examples = worked_examples(config.level) if config.dataset is None else []
    if config.examples is not None:
        try:
            examples = json.loads(config.examples.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"Cannot read {config.examples}: {error}.") from None
    if config.dataset is None or config.eval_dataset is None:
        held_out = {
            name: held_out_rows(config.level, config.eval_problems, wordings)
            for name, wordings in (("held-out", Wordings.TRAINED), ("new-wordings", Wordings.HELD_OUT))
            if config.eval_problems
        }
        return Datasets(training_rows(config.level, TRAINING_ROWS, config.seed), held_out, examples)
    held_out_path = config.eval_dataset
    return Datasets(_rows_of(config.dataset), {"held-out": _rows_of(held_out_path)[: config.eval_problems]}, examples)


def _rows_of(path: Path) -> list[dict[str, Any]]:
    reader = DatasetReader(str(path))
    if error := reader.check().error():
        raise TrainingError(error)
    rows = [dict(row) for row in reader.iter_rows()]
    if not rows:
        raise TrainingError(f"{path} has no rows.")
    return rows
