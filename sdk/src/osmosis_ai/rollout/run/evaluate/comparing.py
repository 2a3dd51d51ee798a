"""Two evaluations that were saved, row by row: ``osmosis eval compare``."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.core.user_errors import CLIError, UsageError
from osmosis_ai.rollout.run.evaluate.eval_results import PRIMARY, EvalRowResult
from osmosis_ai.rollout.run.evaluate.options import score_bounds
from osmosis_ai.rollout.run.evaluate.records import run_of
from osmosis_ai.rollout.run.evaluate.statistics import DEFAULT_SEED, PairedDifference
from osmosis_ai.rollout.run.evaluate.summary import compare


@dataclass(frozen=True, slots=True)
class SavedEvaluation:
    """What a results file of ``osmosis eval`` holds; of a comparison, the primary model's runs."""

    path: Path
    model: str
    dataset_digest: str | None
    eval_names: list[str]
    score_range: str | None
    rows: list[EvalRowResult]


def read_evaluation(path: Path) -> SavedEvaluation:
    """Read a results file.

    Raises:
        UsageError: there is none.
        CLIError: it is not one of ``osmosis eval``.
    """
    try:
        document: Any = json.loads(path.read_bytes())
        config = document["config"]
        rows = [
            EvalRowResult(
                row["row_index"], [run for run in map(run_of, row["runs"]) if run.model_tag in (None, PRIMARY)]
            )
            for row in document["rows"]
        ]
        digest = config["dataset"]["sha256"]
        range_ = config.get("score_range")
        return SavedEvaluation(path, str(config["model"]), digest, list(config["eval_fns"]), range_, rows)
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist: name a file that osmosis eval wrote with -o.") from error
    except OSError as error:
        raise CLIError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise CLIError(f"{path} is no results file of osmosis eval: name one that it wrote with -o.") from error


def compare_saved(
    first: SavedEvaluation, second: SavedEvaluation, seed: int = DEFAULT_SEED
) -> dict[str, PairedDifference]:
    """First minus second, by each eval function that both have.

    Raises:
        CLIError: they are of different datasets, or have no eval function or no scored row in common.
    """
    if first.dataset_digest != second.dataset_digest:
        raise CLIError(
            f"{first.path} and {second.path} are of different datasets, so their rows are not the same questions:"
            " compare evaluations of one file."
        )
    bounds = score_bounds(first.score_range if first.score_range == second.score_range else None)
    shared = [name for name in first.eval_names if name in second.eval_names]
    found = {name: compare(name, first.rows, second.rows, seed, bounds) for name in shared}
    known = {name: paired for name, paired in found.items() if paired is not None}
    if not known:
        raise CLIError(f"{first.path} and {second.path} have no eval function with scores for the same rows.")
    return known


def as_json(first: SavedEvaluation, second: SavedEvaluation, found: dict[str, PairedDifference]) -> dict[str, Any]:
    """The comparison as one document."""
    files = [{"path": str(each.path), "model": each.model} for each in (first, second)]
    return {"first": files[0], "second": files[1], "comparison": {name: asdict(each) for name, each in found.items()}}
