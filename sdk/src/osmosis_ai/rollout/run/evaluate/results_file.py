"""The ``-o`` file of an evaluation, and the stream beside it.

Every run is a line of ``<name>.jsonl`` as soon as it ends, so an interrupt or a crash loses none, and lines that no
document has are moved aside by the next evaluation, never overwritten. The document appears under its own name by a
rename, whole or not at all; it holds the same runs in the order of the dataset.
"""

import json
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from itertools import count, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from osmosis_ai.rollout.core.jsonable import plain
from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.run.data.dataset import REQUIRED_COLUMNS
from osmosis_ai.rollout.run.evaluate.summary import performance, runs_with_tag
from osmosis_ai.rollout.run.evaluate.types import EvalEvalSummary, EvalResult, EvalRunResult

STREAM_SUFFIX = ".jsonl"
FINISHED = {"finished": True}


class EvalResultsFile:
    """Takes runs in any order. A context manager.

    Raises:
        CLIError: on construction, if ``path`` cannot be written.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        check_output(path)
        self.path = path
        self.stream_path = path.with_suffix(STREAM_SUFFIX)
        self.kept_aside: Path | None = None
        """Where the runs of an earlier evaluation went that were in the way."""
        self._config = config
        self._spans: dict[tuple[int | None, int, str | None], tuple[int, int]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if _is_unfinished(self.stream_path):
                self.kept_aside = _unused_name(self.stream_path)
                self.stream_path.rename(self.kept_aside)
            self._stream = self.stream_path.open("w+b")
            self._write_line({"config": config})
        except OSError as error:
            raise _cannot_write(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.close()

    def add(self, run: EvalRunResult, row: Mapping[str, Any]) -> None:
        """Take one run of ``row``, with its conversation.

        Raises:
            CLIError: if the disk does not take it.
        """
        of_row = {
            "row_index": run.row_index,
            "ground_truth": row.get("ground_truth"),
            "metadata": {column: value for column, value in row.items() if column not in REQUIRED_COLUMNS},
        }
        try:
            span = self._write_line({**of_row, **run_as_json(run)})
        except OSError as error:
            raise _cannot_write(self.stream_path, error) from error
        self._spans[run.row_index, run.run_index, run.model_tag] = span

    def publish(self, result: EvalResult) -> None:
        """Write the document.

        Raises:
            CLIError: if the disk does not take it.
        """
        whole_path = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        head = {"config": self._config, **overview(result)}
        try:
            with whole_path.open("wb") as file:
                file.write(_encoded(head, indent=2).rstrip().removesuffix(b"}").rstrip() + b',\n  "rows": [')
                for position, row in enumerate(result.rows):
                    runs = b",\n      ".join(
                        self._line(self._spans[row.row_index, run.run_index, run.model_tag]) for run in row.runs
                    )
                    separator = b"," if position else b""
                    file.write(separator + b'\n    {"row_index": %d, "runs": [\n      ' % row.row_index + runs + b"]}")
                file.write(b"\n  ]\n}\n")
            whole_path.replace(self.path)
            self._write_line(FINISHED)
        except OSError as error:
            whole_path.unlink(missing_ok=True)
            raise _cannot_write(self.path, error) from error

    def _write_line(self, value: Mapping[str, Any]) -> tuple[int, int]:
        start = self._stream.seek(0, os.SEEK_END)
        line = _encoded(value)
        self._stream.write(line + b"\n")
        self._stream.flush()
        return start, len(line)

    def _line(self, span: tuple[int, int]) -> bytes:
        start, size_bytes = span
        self._stream.seek(start)
        return self._stream.read(size_bytes)


def check_writable(path: Path) -> None:
    """See that a file can be written at ``path`` later, without touching anything.

    Raises:
        CLIError: it cannot, as far as can be told.
    """
    if path.exists() and not path.is_file():
        raise CLIError(f"Cannot write {path}: it is not a regular file.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise CLIError(f"Cannot write {path}: {folder} is not a folder that can be written to.")


def check_output(path: Path) -> None:
    """As ``check_writable``, for an evaluation's results.

    Raises:
        CLIError: it cannot be written, or its name is that of the stream.
    """
    check_writable(path)
    if path.suffix.lower() == STREAM_SUFFIX:
        raise CLIError(f"Cannot write {path}: the runs are streamed to a .jsonl beside it; name a .json file.")


def run_as_json(run: EvalRunResult) -> dict[str, Any]:
    """One run; what does not apply to it is left out."""
    fields: dict[str, Any] = {
        "run_index": run.run_index,
        "success": run.success,
        "scores": run.scores,
        "duration_ms": run.duration_ms,
        "tokens": run.tokens,
    }
    optional = {
        "model_tag": run.model_tag,
        "error": run.error,
        "eval_errors": run.eval_errors,
        "unscored": run.unscored,
        "token_usage": run.token_usage,
        "num_tool_calls": run.num_tool_calls,
        "cost_usd": run.cost_usd,
        "reward": run.reward,
        "finish_reason": run.finish_reason,
        "final_messages": run.final_messages,
    }
    return fields | {name: value for name, value in optional.items() if value not in (None, [], {})}


def overview(result: EvalResult) -> dict[str, Any]:
    """All of ``result`` but its rows."""
    summary: dict[str, Any] = {
        "total_rows": result.total_rows,
        "total_runs": result.total_runs,
        "stopped_early": result.stopped_early,
        "eval_fns": _summaries_as_json(result.eval_summaries),
        "total_tokens": result.total_tokens,
        "total_duration_ms": result.total_duration_ms,
        "failed_runs": sum(not run.success for row in result.rows for run in row.runs),
    }
    if result.stop_reason is not None:
        summary["stop_reason"] = result.stop_reason
    costs = [run.cost_usd for row in result.rows for run in row.runs if run.cost_usd is not None]
    if costs:
        summary["cost_usd"] = sum(costs)
    if not result.model_summaries:
        return {"summary": summary | _performance_as_json(result, None)}
    models = [
        {
            "model": model.model,
            "model_tag": model.model_tag,
            "total_runs": model.total_runs,
            "total_tokens": model.total_tokens,
            "total_duration_ms": model.total_duration_ms,
            "eval_fns": _summaries_as_json(model.eval_summaries),
            **_performance_as_json(result, model.model_tag),
        }
        for model in result.model_summaries
    ]
    comparisons = {eval_name: asdict(paired) for eval_name, paired in result.comparisons.items()}
    return {"summary": summary, "model_summaries": models, "comparison": comparisons}


def _performance_as_json(result: EvalResult, tag: str | None) -> dict[str, Any]:
    took = performance(runs_with_tag(result.rows, tag))
    return {
        "failed_runs": took.failed_runs,
        "latency_ms": asdict(took.latency_ms),
        "tokens_per_run": asdict(took.tokens),
    }


def _summaries_as_json(summaries: Mapping[str, EvalEvalSummary]) -> dict[str, Any]:
    return {eval_name: _summary_as_json(summary) for eval_name, summary in summaries.items()}


def _summary_as_json(summary: EvalEvalSummary) -> dict[str, Any]:
    scores = {"mean": summary.mean, "std": summary.std, "min": summary.min, "max": summary.max}
    return {
        **(dict.fromkeys(scores) if summary.is_empty else scores),
        **{f"pass_at_{k}": share for k, share in summary.pass_at_k.items()},
        "mean_interval": asdict(summary.mean_interval) if summary.mean_interval else None,
        **{f"pass_at_{k}_interval": asdict(bounds) for k, bounds in summary.pass_at_k_intervals.items()},
        "scored_runs": summary.scored_runs,
        "scored_rows": summary.scored_rows,
        "unscored_runs": summary.unscored,
        "errors": summary.errors,
        "first_error": summary.first_error,
    }


def _is_unfinished(stream_path: Path) -> bool:
    """Whether there are runs that no document has, as far as the last line tells."""
    if not stream_path.is_file():
        return False
    with stream_path.open("rb") as file:
        last_lines = deque(islice(file, 1, None), maxlen=1)
    return bool(last_lines) and last_lines[0].rstrip() != _encoded(FINISHED)


def _unused_name(stream_path: Path) -> Path:
    names = (stream_path.with_name(f"{stream_path.stem}.unfinished-{number}{STREAM_SUFFIX}") for number in count(1))
    return next(name for name in names if not name.exists())


def _encoded(value: Mapping[str, Any], indent: int | None = None) -> bytes:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent).encode()


def _cannot_write(path: Path, error: OSError) -> CLIError:
    return CLIError(f"Cannot write {path}: {error.strerror or error}.")
