"""The results of a batch on disk.

Beside ``-o results.json`` lies ``results.jsonl``: a header with the digests of all inputs, then one line a run, written
as soon as the run ends. So a crash loses at most a torn last line, which the next reader leaves out. The JSON document
appears by a rename, whole or not at all, in the order of the dataset. In memory a run takes eight bytes.
"""

import json
import os
import tempfile
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.run.test.inputs import changed_inputs
from osmosis_ai.rollout.run.test.record import Record

FORMAT = "osmosis-test-results/1"
_NOWHERE = -1


class ResultsFile:
    """Takes records in any order. A context manager.

    ``slot`` numbers the runs of a batch from 0 in the order of the dataset. Without a ``path`` the lines go to a
    nameless temporary file.

    Raises:
        CLIError: on construction, if ``path`` cannot be written, or not be gone on with.
    """

    def __init__(self, path: Path | None, inputs: dict[str, Any], resume: bool = False) -> None:
        self.path = path
        self.kept_aside: Path | None = None
        """Where unfinished results went that were in the way."""
        self._offsets = array("q")
        self._file: IO[bytes]
        if path is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit
            return
        if path.exists() and not path.is_file():
            raise CLIError(f"Cannot write {path}: it is not a regular file.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open(self.lines_path, inputs, resume)
        except OSError as error:
            raise _cannot_write(path, error) from error

    @property
    def lines_path(self) -> Path:
        """The file of the lines."""
        if self.path is None:
            raise ValueError("These results have no name.")
        return self.path.with_suffix(".jsonl") if self.path.suffix == ".json" else Path(f"{self.path}.jsonl")

    def _open(self, lines_path: Path, inputs: dict[str, Any], resume: bool) -> None:
        if resume and lines_path.exists():
            self._file = lines_path.open("r+b")
            self._check_header(lines_path, inputs)
            return
        if not resume and _is_unfinished(lines_path):
            self.kept_aside = _unused_name(lines_path)
            lines_path.rename(self.kept_aside)
        self._file = lines_path.open("w+b")
        self._append({"format": FORMAT, "inputs": inputs})

    def _check_header(self, lines_path: Path, inputs: dict[str, Any]) -> None:
        header = _decoded(self._file.readline())
        if header is None or header.get("format") != FORMAT:
            self._file.close()
            raise CLIError(f"{lines_path} holds no results of 'osmosis test': leave out --resume, or name another -o.")
        if changed := changed_inputs(header.get("inputs"), inputs):
            self._file.close()
            raise CLIError(
                f"Cannot go on with {lines_path}: changed since it was written: {', '.join(changed)}; undo that, or"
                " leave out --resume to start anew."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def earlier_records(self, slot_of: "SlotOf") -> Iterator[Record]:
        """The successful runs that are there already; call it before anything is added.

        A failed run is left out: it is to be made again. What follows the last whole line is cut off.
        """
        if self.path is None:
            return
        end = self._file.tell()
        while line := self._file.readline():
            record = _decoded(line)
            if record is None or not line.endswith(b"\n"):
                break
            slot = slot_of(record) if record.get("success") else None
            if slot is not None:
                if not self.has(slot):
                    yield record
                self._note(slot, end)
                self._file.seek(end + len(line))
            end += len(line)
        self._file.truncate(end)

    def has(self, slot: int) -> bool:
        """Whether the run of ``slot`` is there."""
        return slot < len(self._offsets) and self._offsets[slot] != _NOWHERE

    def add(self, slot: int, record: Record) -> None:
        """Write one run.

        Raises:
            CLIError: if the disk does not take it.
        """
        try:
            self._note(slot, self._append(record))
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def finish(self) -> None:
        """Mark the lines as those of a run that made all it was to make."""
        self._append({"finished": True})

    def publish(self, summary: dict[str, Any], config: dict[str, Any]) -> None:
        """Write the document under its own name.

        Raises:
            CLIError: if the disk does not take it.
        """
        if self.path is None:
            return
        part_path = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            with part_path.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(self.document(summary, config))
            part_path.replace(self.path)
        except OSError as error:
            part_path.unlink(missing_ok=True)
            raise _cannot_write(self.path, error) from error

    def document(self, summary: dict[str, Any], config: dict[str, Any]) -> Iterator[str]:
        """The JSON document in pieces: ``summary``, ``config``, ``results``."""
        yield f'{{\n  "summary": {_indented(summary, 2)},\n  "config": {_indented(config, 2)},\n  "results": ['
        separator = "\n    "
        for record in self._in_order():
            yield separator + _indented(record, 4)
            separator = ",\n    "
        yield "\n  ]\n}\n"

    def _in_order(self) -> Iterator[Record]:
        self._file.flush()
        for offset in self._offsets:
            if offset != _NOWHERE:
                self._file.seek(offset)
                yield json.loads(self._file.readline())
        self._file.seek(0, os.SEEK_END)

    def _append(self, value: Any) -> int:
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
        )
        self._file.flush()
        return offset

    def _note(self, slot: int, offset: int) -> None:
        missing = slot + 1 - len(self._offsets)
        if missing > 0:
            self._offsets.extend([_NOWHERE] * missing)
        self._offsets[slot] = offset


class SlotOf:
    """The slot of a run: row after row from ``offset`` on, ``repeat`` runs each."""

    def __init__(self, offset: int, repeat: int) -> None:
        self._offset = offset
        self._repeat = repeat

    def __call__(self, record: Record) -> int | None:
        """``None`` for what is no run of this batch."""
        row_index, repeat = record.get("row_index"), record.get("repeat")
        if not isinstance(row_index, int) or not isinstance(repeat, int):
            return None
        return (row_index - self._offset) * self._repeat + repeat if row_index >= self._offset else None


def _decoded(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _indented(value: Any, columns: int) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2).replace("\n", "\n" + " " * columns)


def _is_unfinished(lines_path: Path) -> bool:
    """Whether there are results that no final document has, as far as the last line tells."""
    if not lines_path.is_file():
        return False
    with lines_path.open("rb") as file:
        header = _decoded(file.readline())
        last_lines = deque(file, maxlen=1)
    is_ours = header is not None and header.get("format") == FORMAT
    return is_ours and bool(last_lines) and _decoded(last_lines[0]) != {"finished": True}


def _unused_name(lines_path: Path) -> Path:
    names: Iterable[Path] = (
        lines_path.with_name(f"{lines_path.stem}.unfinished-{number}.jsonl") for number in range(1, 1_000_000)
    )
    return next(name for name in names if not name.exists())


def _cannot_write(path: Path | None, error: OSError) -> CLIError:
    return CLIError(f"Cannot write {path or 'a temporary file'}: {error.strerror or error}.")
