"""The ``-o`` file: every rollout with its conversation and the summary, as one JSON document, published by a rename."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from osmosis_ai.rollout.trainer.errors import TrainerError
from osmosis_ai.rollout.trainer.report import Report, ReportLine
from osmosis_ai.rollout.trainer.types import RolloutOutcome


class ResultsFile:
    """Takes results as they come, on disk; ``publish`` makes the document appear under ``path``, whole or not at all.

    A context manager: what was not published is removed at the end.

    Raises:
        TrainerError: on construction, if ``path`` cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spool_path = path.with_name(f".{path.name}.{os.getpid()}.part")
        if path.exists() and not path.is_file():
            raise TrainerError(f"Cannot write {path}: it is not a regular file.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._spool = self._spool_path.open("wb")
        except OSError as error:
            raise TrainerError(f"Cannot write {path}: {error.strerror or error}.") from error
        self._spool.write(b'{"results": [')
        self._separator = b"\n"

    def add(self, line: ReportLine, outcome: RolloutOutcome) -> None:
        """Append one rollout."""
        result = outcome.result
        record = asdict(line) | {
            "metrics": result.metrics.model_dump() if result and result.metrics else None,
            "extra_fields": result.extra_fields if result else {},
            "final_messages": result.final_messages if result else [],
        }
        self._spool.write(self._separator + _encoded(record))
        self._separator = b",\n"

    def publish(self, report: Report, settings: dict[str, Any]) -> None:
        """Complete the document and rename it to its place.

        Raises:
            TrainerError: if the disk does not take it.
        """
        try:
            with self._spool:
                self._spool.write(b"\n],\n")
                self._spool.write(b'"summary": ' + _encoded(report.summary()) + b",\n")
                self._spool.write(b'"settings": ' + _encoded(settings) + b"\n}\n")
            self._spool_path.replace(self._path)
        except OSError as error:
            raise TrainerError(f"Cannot write {self._path}: {error.strerror or error}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._spool.close()
        self._spool_path.unlink(missing_ok=True)


def _encoded(value: object) -> bytes:
    # A lone surrogate becomes its JSON escape, so the file is valid UTF-8 whatever a model wrote.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
