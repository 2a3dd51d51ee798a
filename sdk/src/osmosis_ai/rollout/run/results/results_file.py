"""The results of a run on disk: the one writer behind ``-o`` of `osmosis test`, `eval` and `trainer`.

Beside ``-o results.json`` lies ``results.jsonl``: a header with the digests of all inputs, then one line a run, written
as soon as the run ends. What holds at any moment, a ``kill -9`` included:

- every run that ended is a whole line; at most the last line is torn, and the next reader leaves it out;
- the JSON document is the old one or the new one, never half of one: it appears by a rename, in the order of the
  dataset;
- lines of an earlier run that is not gone on with, and files that are none of ours, are moved aside, never overwritten;
- both files are their owner's alone (`core/files.py`): they hold prompts, replies and ground truths.

In memory a run takes eight bytes: where its line begins.
"""

import json
import os
import tempfile
from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import IO, Any, Self

from osmosis_ai.rollout.core.files import make_folder, open_regular, write_whole
from osmosis_ai.rollout.core.jsonable import plain
from osmosis_ai.rollout.core.text import counted
from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.run.driver import RunPlan
from osmosis_ai.rollout.run.results.inputs import changed_inputs

FINISHED = {"finished": True}
LINES_SUFFIX = ".jsonl"
_NOWHERE = -1

Record = dict[str, Any]
"""One run as JSON: a ``RunEntry``, and what its command adds."""


class ResultsFile:
    """Takes records in any order. A context manager; one event loop.

    Args:
        path: of the document; without one the lines go to a nameless temporary file, or nowhere if not ``is_read``.
        command: whose results they are, such as ``test``.
        resume: go on with the lines that are there.

    Raises:
        CLIError: on construction, if ``path`` cannot be written, or not be gone on with.
    """

    def __init__(
        self,
        path: Path | None,
        command: str,
        plan: RunPlan,
        inputs: Mapping[str, Any],
        config: Mapping[str, Any] | None = None,
        *,
        resume: bool = False,
        is_read: bool = True,
    ) -> None:
        self.path = path
        self.plan = plan
        self.resumed = 0
        """Runs that were there already."""
        self.kept_aside: Path | None = None
        """Where earlier results went that were in the way."""
        self._command = command
        self._resume = resume
        self._inputs = dict(inputs)
        self._config = dict(config or {})
        self._offsets = array("q")
        self._file: IO[bytes]
        if path is None:
            # Closed on exit.
            self._file = tempfile.TemporaryFile() if is_read else Path(os.devnull).open("w+b")  # noqa: SIM115 - as said
            return
        self._refuse_what_is_no_place(path)
        try:
            make_folder(path.parent)
            self._open(self.lines_path)
        except OSError as error:
            raise _cannot_write(path, error) from error

    @property
    def lines_path(self) -> Path:
        """The file of the lines."""
        if self.path is None:
            raise ValueError("These results have no name.")
        return lines_path_of(self.path)

    @property
    def _format(self) -> str:
        return f"osmosis-{self._command}-results/2"

    def _refuse_what_is_no_place(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            raise CLIError(f"Cannot write {path}: it is not a regular file.")
        for dataset in map(Path, self._inputs.get("dataset", ())):
            for target in (path, self.lines_path):
                if target.exists() and dataset.exists() and target.samefile(dataset):
                    raise CLIError(f"Cannot write {path}: {target} is the dataset; name another file.")

    def _open(self, lines_path: Path) -> None:
        # Nothing at all is what a kill leaves that came before the header.
        if self._resume and lines_path.exists() and lines_path.stat().st_size:
            self._file = _opened(lines_path, os.O_RDWR)
            try:
                self._check_header(lines_path)
            except CLIError:
                self._file.close()
                raise
            return
        if not self._resume and (word := _word_for_what_is_there(lines_path)):
            self.kept_aside = _unused_name(lines_path, word)
            lines_path.rename(self.kept_aside)
        self._file = _opened(lines_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self._append({"format": self._format, "config": self._config, "inputs": self._inputs})

    def _check_header(self, lines_path: Path) -> None:
        header = _decoded(self._file.readline())
        if header is None or header.get("format") != self._format:
            raise CLIError(
                f"{lines_path} holds no results of 'osmosis {self._command}': leave out --resume, or name another -o."
            )
        if changed := changed_inputs(header.get("inputs"), self._inputs):
            raise CLIError(
                f"Cannot go on with {lines_path}: changed since it was written: {', '.join(changed)}; undo that, or"
                " leave out --resume to start anew."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def earlier_records(self) -> Iterator[Record]:
        """The successful runs that are there already; read it to its end, before anything is added.

        A failed run is left out: it is to be made again. What follows the last whole line is cut off.

        Raises:
            CLIError: there is a run beyond the plan's limit or number of runs, which the document would lack.
        """
        if self.path is None:
            return
        end = self._file.tell()
        while line := self._file.readline():
            record = _decoded(line)
            if record is None or not line.endswith(b"\n"):
                break
            slot = self.plan.slot_of(record) if _is_done(record) else None
            if slot is None and _is_done(record):
                self._refuse_to_lose_repeats(record)
            if slot is not None:
                self._refuse_to_lose(slot)
                is_new = not self.has(slot)
                self._note(slot, end)
                if is_new:
                    self.resumed += 1
                    yield record
                self._file.seek(end + len(line))
            end += len(line)
        self._file.truncate(end)

    def _refuse_to_lose(self, slot: int) -> None:
        if self.plan.leaves_out(slot):
            raise CLIError(
                f"Cannot go on with {self.lines_path}: it has row {self.plan.row_of(slot)}, which --limit"
                f" {self.plan.limit} leaves out; give a larger one, or leave out --resume to start anew."
            )

    def _refuse_to_lose_repeats(self, record: Record) -> None:
        repeat = record.get("repeat", record.get("run_index"))
        if isinstance(repeat, int) and repeat >= self.plan.repeat:
            raise CLIError(
                f"Cannot go on with {self.lines_path}: it has run {repeat + 1} of row {record.get('row_index')}, which"
                f" --n {self.plan.repeat} leaves out; give a larger one, or leave out --resume to start anew."
            )

    def what_was_there(self, planned: int) -> str | None:
        """What to tell of results that were there, after ``earlier_records``: gone on with, or kept aside."""
        if self._resume:
            return f"Going on with {self.lines_path}: {self.resumed:,} of {counted(planned, 'run')} are there."
        return f"Results of an earlier run were kept as {self.kept_aside}." if self.kept_aside else None

    def has(self, slot: int) -> bool:
        """Whether the run of ``slot`` is there."""
        return slot < len(self._offsets) and self._offsets[slot] != _NOWHERE

    def add(self, slot: int, record: Mapping[str, Any]) -> None:
        """Write one run.

        Raises:
            CLIError: if the disk does not take it.
        """
        self._note(slot, self._append(record))

    def publish(self, head: Mapping[str, Any], *, finished: bool) -> None:
        """Write the document under its own name; ``finished`` is written below its lines.

        Raises:
            CLIError: if the disk does not take it.
        """
        if self.path is None:
            return
        write_whole(self.path, self.document(head))
        if finished:
            self._append(FINISHED)

    def document(self, head: Mapping[str, Any]) -> Iterator[str]:
        """The JSON document in pieces: the sections of ``head``, then ``results``, a record a line."""
        yield "{"
        for key, value in head.items():
            yield f'\n  "{key}": ' + _encoded(value, indent=2).replace("\n", "\n  ") + ","
        yield '\n  "results": ['
        separator = "\n    "
        for text in self._in_order():
            yield separator + text
            separator = ",\n    "
        yield "\n  ]\n}\n"

    def _in_order(self) -> Iterator[str]:
        for offset in self._offsets:
            if offset != _NOWHERE:
                self._file.seek(offset)
                yield self._file.readline().decode().rstrip("\n")

    def _append(self, value: Any) -> int:
        # A lone surrogate becomes its JSON escape, so the file is valid UTF-8 whatever a model wrote.
        line = _encoded(value).encode("utf-8", "backslashreplace") + b"\n"
        try:
            offset = self._file.seek(0, os.SEEK_END)
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        return offset

    def _note(self, slot: int, offset: int) -> None:
        missing = slot + 1 - len(self._offsets)
        if missing > 0:
            self._offsets.extend([_NOWHERE] * missing)
        self._offsets[slot] = offset


def lines_path_of(path: Path) -> Path:
    """Where the lines of the document ``path`` are."""
    return path.with_suffix(LINES_SUFFIX) if path.suffix == ".json" else Path(f"{path}{LINES_SUFFIX}")


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


def _is_done(record: Record) -> bool:
    return record.get("success") is True or record.get("status") == "COMPLETED"


def _decoded(line: bytes) -> Record | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _encoded(value: Any, indent: int | None = None) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def _word_for_what_is_there(lines_path: Path) -> str | None:
    """``finished`` or ``unfinished``, as far as first and last line tell; ``None`` where there are no runs to lose."""
    if not lines_path.is_file():
        return None
    with _opened(lines_path, os.O_RDONLY) as file:
        first = file.readline()
        last_lines = deque(file, maxlen=1)
    if not last_lines:
        header = _decoded(first) or {}
        return "unfinished" if first and not {"format", "config"} & header.keys() else None
    return "finished" if _decoded(last_lines[0]) == FINISHED else "unfinished"


def _unused_name(lines_path: Path, word: str) -> Path:
    names = (lines_path.with_name(f"{lines_path.stem}.{word}-{number}{LINES_SUFFIX}") for number in count(1))
    return next(name for name in names if not name.exists())


def _opened(path: Path, flags: int) -> IO[bytes]:
    # A link is the user's: results may lie on another disk.
    return os.fdopen(open_regular(path, flags, follow=True), "rb" if flags == os.O_RDONLY else "r+b")


def _cannot_write(path: Path | None, error: OSError) -> CLIError:
    return CLIError(f"Cannot write {path or 'a temporary file'}: {error.strerror or error}.")
