"""Datasets: rows of a system prompt, a user prompt and a ground truth, read lazily from JSONL, CSV or Parquet.

A row is parsed only when it is asked for: neither what ``offset`` skips nor what follows ``limit`` is looked at.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, TypedDict, cast

from pydantic import ValidationError

from osmosis_ai.rollout.core.schemas import RolloutRequest, get_max_metadata_size_bytes
from osmosis_ai.rollout.core.text import counted, shortened
from osmosis_ai.rollout.run.data.columns import (
    PROMPT_MESSAGES,
    REQUIRED_COLUMNS,
    TARGETS,
    Source,
    arranged,
    is_conversation,
    proposal,
)
from osmosis_ai.rollout.run.data.dataset_files import file_at, plain_value, whole_text
from osmosis_ai.rollout.run.errors import DatasetParseError, DatasetValidationError, LocalExecutionError

__all__ = ["REQUIRED_COLUMNS", "DatasetReader", "DatasetRow", "dataset_row_to_request"]

_TARGETS = frozenset(TARGETS)
_ROW = re.compile(r"^Row \d+: ")

MAX_PROBLEMS = 50
MAX_SHOWN_COLUMNS = 500
MAX_SHOWN_TRUTH = 80

# Nothing is ever sent there: whoever dispatches the request puts its own address in.
PLACEHOLDER_SERVER_URL = "http://local-rollout.local"


class DatasetRow(TypedDict):
    """One validated row. At run time a plain dict that also holds the file's other columns, as they were.

    Where the file has the prompt as chat messages, they are in ``prompt_messages``, and the two texts are theirs.
    """

    ground_truth: Any
    """Text, or another JSON value."""
    user_prompt: str
    system_prompt: str


@dataclass(slots=True)
class DatasetCheck:
    """What one reading of a file found."""

    path: Path
    rows: int = 0
    """Rows read, bad ones included."""
    bad_rows: int = 0
    is_broken: bool = False
    """Whether the file cannot be read to its end."""
    problems: list[tuple[str, LocalExecutionError]] = field(default_factory=list)
    """The first ``MAX_PROBLEMS`` of them, each with its place in the file."""
    incomparable: int = 0
    """Rows with a ground truth that cannot be compared."""
    incomparable_truths: list[tuple[str, str]] = field(default_factory=list)
    """The first ``MAX_PROBLEMS`` of them, each with its place in the file."""

    def add(self, place: str, error: LocalExecutionError) -> None:
        """Note one bad row."""
        self.bad_rows += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append((place, error))

    def add_incomparable(self, place: str, ground_truth: Any) -> None:
        """Note one row that can be run, but not be scored."""
        self.incomparable += 1
        if len(self.incomparable_truths) < MAX_PROBLEMS:
            shown = json.dumps(ground_truth, ensure_ascii=False)
            self.incomparable_truths.append((place, shortened(shown, limit=MAX_SHOWN_TRUTH)))

    def warning(self) -> str | None:
        """All that cannot be scored as one text, a line each; ``None`` if everything can."""
        if not self.incomparable:
            return None
        first = (
            f"{self.incomparable:,} of {counted(self.rows, 'row')} of {self.path} cannot be scored, as is_right has"
            " nothing to compare with in their ground truth; their reward is None. Give a number, a text, true or"
            " false, or another reward:"
        )
        lines = [f"{place}: {truth}" for place, truth in self.incomparable_truths]
        if unlisted := self.incomparable - len(lines):
            lines.append(f"and {unlisted} more")
        return "\n  ".join([first, *lines])

    def error(self) -> str | None:
        """All problems as one text, a line each; ``None`` if there are none."""
        if not self.problems:
            return None
        if self.bad_rows == 1:
            place, problem = self.problems[0]
            where = f"{self.path}, {place}: " if place and isinstance(problem, DatasetValidationError) else ""
            return f"{where}{problem}"
        alike: dict[str, list[tuple[str, str]]] = {}
        for place, problem in self.problems:
            alike.setdefault(_ROW.sub("", str(problem)), []).append((place, str(problem)))
        lines = [
            f"{', '.join(place for place, _ in same)}: {text if len(same) > 1 else same[0][1]}".removeprefix(": ")
            for text, same in alike.items()
        ]
        if unlisted := self.bad_rows - len(self.problems):
            lines.append(f"and {unlisted} more")
        return "\n  ".join([f"{self.bad_rows:,} of {counted(self.rows, 'row')} of {self.path} cannot be used:", *lines])


class DatasetReader:
    """Reads the rows of one file; the suffix says the format, any case: see ``file_at``.

    Args:
        columns: where prompt and truth are, as ``--columns`` says; the rest is found by its name.

    Raises:
        FileNotFoundError: if there is no such file.
        DatasetParseError: if the suffix is not supported.
    """

    def __init__(self, file_path: str | PathLike[str], columns: Mapping[str, Source] | None = None) -> None:
        self.file_path = Path(file_path)
        self._columns = columns or {}
        if not self.file_path.exists():
            raise FileNotFoundError(f"Dataset file not found: {file_path}")
        self._file = file_at(self.file_path)
        self._length: int | None = None

    def read(self, limit: int | None = None, offset: int = 0) -> list[DatasetRow]:
        """The rows of ``iter_rows`` as a list."""
        return list(self.iter_rows(limit=limit, offset=offset))

    def iter_rows(self, limit: int | None = None, offset: int = 0) -> Iterator[DatasetRow]:
        """Skip ``offset`` rows unparsed, then yield up to ``limit`` validated ones (``None``: all).

        Raises:
            DatasetParseError: if the file cannot be read, naming the line or record.
            DatasetValidationError: if a row is not usable; numbers count from 0 in the file.
            ValueError: if ``limit`` or ``offset`` is negative.
        """
        _check_window(limit, offset)
        return self._rows(limit, offset)

    def check(
        self, limit: int | None = None, offset: int = 0, is_comparable: Callable[[Any], bool] | None = None
    ) -> "DatasetCheck":
        """Read what ``iter_rows`` would, to the end, and tell of every row that cannot be used.

        ``is_comparable`` says of a ground truth whether answers can be compared with it; without it nothing is asked.

        Raises:
            DatasetParseError: if the file cannot be read any further, and nothing else is wrong before that.
            ValueError: if ``limit`` or ``offset`` is negative.
        """
        found = DatasetCheck(self.file_path)
        try:
            for place, row in self._located_rows(limit, offset):
                found.rows += 1
                if isinstance(row, LocalExecutionError):
                    found.add(place, row)
                elif is_comparable is not None and not is_comparable(row["ground_truth"]):
                    found.add_incomparable(place, row["ground_truth"])
        except DatasetParseError as error:
            found.add("", error)
            found.is_broken = True
        return found

    def usable_rows(self, limit: int | None = None, offset: int = 0) -> Iterator[tuple[int, DatasetRow]]:
        """As ``iter_rows``, each row with its number in the file; what cannot be used is left out.

        Raises:
            DatasetParseError: if the file cannot be read any further.
            ValueError: if ``limit`` or ``offset`` is negative.
        """
        for number, (_, row) in enumerate(self._located_rows(limit, offset), start=offset):
            if not isinstance(row, LocalExecutionError):
                yield number, row

    def _rows(self, limit: int | None, offset: int) -> Iterator[DatasetRow]:
        for _, row in self._located_rows(limit, offset):
            if isinstance(row, LocalExecutionError):
                raise row
            yield row

    def _located_rows(self, limit: int | None, offset: int) -> Iterator[tuple[str, DatasetRow | LocalExecutionError]]:
        _check_window(limit, offset)
        number_of_rows = offset
        row: DatasetRow | LocalExecutionError
        try:
            for place, record in islice(self._file.records(skip=offset), limit):
                try:
                    row = (
                        record
                        if isinstance(record, DatasetParseError)
                        else _validated(record, number_of_rows, self._columns)
                    )
                except DatasetValidationError as error:
                    row = error
                yield place, row
                number_of_rows += 1
        except OSError as error:
            raise DatasetParseError(f"Cannot read {self.file_path}: {error.strerror or error}.") from error
        reached_the_end = limit is None or number_of_rows < offset + limit
        if reached_the_end and (offset == 0 or number_of_rows > offset):
            self._length = number_of_rows

    def __len__(self) -> int:
        """All rows of the file, counted without validation, once."""
        if self._length is None:
            self._length = self._file.count()
        return self._length


def _check_window(limit: int | None, offset: int) -> None:
    if offset < 0 or (limit is not None and limit < 0):
        raise ValueError(f"limit and offset must not be negative, got limit={limit}, offset={offset}.")


def _validated(record: object, index: int, columns: Mapping[str, Source]) -> DatasetRow:
    if not isinstance(record, dict):
        raise DatasetValidationError(f"Row {index}: Expected object, got {type(record).__name__}.")
    record = {name: None if value != value else value for name, value in record.items()}  # a table's NaN is its null
    own = _own_columns(record, index)
    try:
        row, places = arranged(record, own, columns)
    except ValueError as error:
        raise DatasetValidationError(f"Row {index}: {error}") from None
    row.setdefault("system_prompt", "")
    if missing := [column for column in REQUIRED_COLUMNS if column not in row]:
        found = ", ".join(map(repr, record)) or "none"
        raise DatasetValidationError(
            f"Row {index}: Missing required columns: {missing}; it has {found[:MAX_SHOWN_COLUMNS]}: say which they are"
            f" with --columns {proposal(missing, row)}."
        )
    validated: dict[str, Any] = {
        "ground_truth": _validated_truth(row.pop("ground_truth"), places["ground_truth"], index)
    }
    if messages := row.pop(PROMPT_MESSAGES, None):
        place = places[PROMPT_MESSAGES]
        if not is_conversation(messages):
            raise DatasetValidationError(f"Row {index}: {place!a} must be a list of chat messages")
        content = messages[-1].get("content")
        if not (content.strip() if isinstance(content, str) else isinstance(content, list) and content):
            raise DatasetValidationError(f"Row {index}: {place!a}: the user's last message has no text and no parts")
        validated[PROMPT_MESSAGES] = _validated_extra(messages, place, index)
        validated |= {name: row.pop(name) for name in ("user_prompt", "system_prompt")}
    else:
        validated["user_prompt"] = _validated_text(row.pop("user_prompt"), places["user_prompt"], index)
        system = row.pop("system_prompt")
        validated["system_prompt"] = _validated_text(system, places["system_prompt"], index) if system != "" else ""
    validated |= {key: _validated_extra(value, key, index) for key, value in row.items()}
    _refuse_too_much(cast(DatasetRow, validated), index)
    return cast(DatasetRow, validated)


def _refuse_too_much(row: DatasetRow, index: int) -> None:
    size_bytes, limit_bytes = len(json.dumps(_metadata_of(row, index))), get_max_metadata_size_bytes()
    if size_bytes > limit_bytes:
        raise DatasetValidationError(
            f"Row {index}: its ground truth and further columns are {size_bytes:,} bytes of JSON, more than the"
            f" {limit_bytes:,} that metadata may have: leave columns out, or raise"
            " OSMOSIS_ROLLOUT_MAX_METADATA_SIZE_BYTES here and at the server"
        )


def _own_columns(record: Mapping[str, Any], index: int) -> dict[str, str]:
    """The columns that have our names, in any case."""
    key_of: dict[str, str] = {}
    for key in record:
        column = key.lower()
        if column not in _TARGETS:
            continue
        if column in key_of:
            raise DatasetValidationError(
                f"Row {index}: '{key_of[column]}' and '{key}' are both '{column}'; keep one of them."
            )
        key_of[column] = key
    return key_of


def _validated_truth(value: object, column: str, index: int) -> object:
    if value is None or isinstance(value, str):
        return _validated_text(value, column, index)
    return _validated_extra(value, column, index)


def _validated_text(value: object, column: str, index: int) -> str:
    if value is None:
        raise DatasetValidationError(f"Row {index}: {column!a} cannot be null")
    if not isinstance(value, str):
        raise DatasetValidationError(f"Row {index}: {column!a} must be a string, got {type(value).__name__}")
    if not value.strip():
        raise DatasetValidationError(f"Row {index}: {column!a} cannot be empty")
    try:
        return whole_text(value)
    except ValueError as error:
        raise DatasetValidationError(f"Row {index}: {column!a} {error}") from None


def _validated_extra(value: object, column: str, index: int) -> object:
    try:
        whole_text(column)
        return plain_value(value)
    except ValueError as error:
        raise DatasetValidationError(f"Row {index}: {column!a} {error}") from None


def dataset_row_to_request(
    row: DatasetRow,
    row_index: int,
    max_turns: int = 10,
    max_tokens_total: int = 4096,
    completion_params: Mapping[str, Any] | None = None,
    rollout_id_prefix: str = "local",
    rollout_id: str | None = None,
    metadata_overrides: Mapping[str, Any] | None = None,
) -> RolloutRequest:
    """The init request of one row, with a placeholder ``server_url``.

    The metadata holds ``ground_truth``, ``row_index`` and every extra column; ``metadata_overrides`` win. A column
    named ``row_index`` cannot hide the real index: it is kept as ``row_index_column``.

    Raises:
        DatasetValidationError: if the columns make metadata that is too large or is no JSON.
        pydantic.ValidationError: if another argument cannot be part of a request.
    """
    metadata = {**_metadata_of(row, row_index), **(metadata_overrides or {})}
    try:
        return RolloutRequest(
            rollout_id=rollout_id or f"{rollout_id_prefix}-{row_index}",
            server_url=PLACEHOLDER_SERVER_URL,
            messages=_messages_of(row),
            completion_params=dict(completion_params or {}),
            max_turns=max_turns,
            max_tokens_total=max_tokens_total,
            metadata=metadata,
        )
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            if problem["loc"] == ("metadata",):
                raise DatasetValidationError(f"Row {row_index}: {problem['msg']}") from None
        raise


def _metadata_of(row: DatasetRow, row_index: int) -> dict[str, Any]:
    columns = extra_columns(row)
    if "row_index" in columns:
        columns.setdefault("row_index_column", columns.pop("row_index"))
    return {"ground_truth": row["ground_truth"], "row_index": row_index, **columns}


def _messages_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    if messages := row.get(PROMPT_MESSAGES):
        return [dict(message) for message in messages]
    system = [{"role": "system", "content": row["system_prompt"]}] if row["system_prompt"] else []
    return [*system, {"role": "user", "content": row["user_prompt"]}]


def extra_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns beside those that every row has."""
    return {key: value for key, value in row.items() if key not in _TARGETS}
