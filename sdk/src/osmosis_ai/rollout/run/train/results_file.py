"""The ``-o`` file: every rollout with its conversation and the summary, as one JSON document.

Results are spooled to ``.<name>.<pid>.part`` beside it as they come, so memory does not grow with conversations. The
document appears under its own name by a rename, whole or not at all.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from osmosis_ai.rollout.run.train.report import Report, ReportLine
from osmosis_ai.rollout.trainer.errors import TrainerError
from osmosis_ai.rollout.trainer.types import RolloutOutcome


class ResultsFile:
    """Takes results in any order and publishes them in the order of the dataset. A context manager.

    Raises:
        TrainerError: on construction, if ``path`` cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            raise TrainerError(f"Cannot write {path}: it is not a regular file.")
        self._path = path
        self._part_path = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._spans: dict[tuple[int, int], tuple[int, int]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._spool = self._part_path.open("w+b")
        except OSError as error:
            raise _cannot_write(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._spool.close()
        self._part_path.unlink(missing_ok=True)

    def add(self, line: ReportLine, outcome: RolloutOutcome) -> None:
        """Take one rollout.

        Raises:
            TrainerError: if the disk does not take it.
        """
        result = outcome.result
        encoded = _encoded(
            asdict(line)
            | {
                "metrics": result.metrics.model_dump() if result and result.metrics else None,
                "extra_fields": result.extra_fields if result else {},
                "final_messages": result.final_messages if result else [],
            }
        )
        try:
            self._spans[line.row_index, line.repeat] = self._spool.tell(), len(encoded)
            self._spool.write(encoded)
        except OSError as error:
            raise _cannot_write(self._path, error) from error

    def publish(self, report: Report, settings: dict[str, Any]) -> None:
        """Write the document.

        Raises:
            TrainerError: if the disk does not take it.
        """
        whole_path = self._part_path.with_suffix(".whole")
        try:
            with whole_path.open("wb") as file:
                file.write(b'{"summary": ' + _encoded(report.summary()))
                file.write(b',\n"settings": ' + _encoded(settings))
                file.write(b',\n"results": [\n')
                for position, encoded in enumerate(self._in_order()):
                    file.write(b",\n" + encoded if position else encoded)
                file.write(b"\n]}\n")
            whole_path.replace(self._path)
        except OSError as error:
            whole_path.unlink(missing_ok=True)
            raise _cannot_write(self._path, error) from error

    def _in_order(self) -> Iterator[bytes]:
        for key in sorted(self._spans):
            start, size_bytes = self._spans[key]
            self._spool.seek(start)
            yield self._spool.read(size_bytes)


def _cannot_write(path: Path, error: OSError) -> TrainerError:
    return TrainerError(f"Cannot write {path}: {error.strerror or error}.")


def _encoded(value: object) -> bytes:
    # A lone surrogate becomes its JSON escape, so the file is valid UTF-8 whatever a model wrote.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
