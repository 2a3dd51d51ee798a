"""Apache Parquet files, read batch by batch; needs ``pyarrow``."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.run.data.lines import Located
from osmosis_ai.rollout.run.errors import DatasetParseError

PARQUET_BATCH_ROWS = 1024


class ParquetFile:
    """The rows of a Parquet file. Times are read to the microsecond, as Python has no finer ones."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self, skip: int) -> Iterator[Located]:
        """The rows after the first ``skip``; row groups that are skipped whole are not read."""
        file = self._open()
        row_number = skip
        row_groups = list(range(file.metadata.num_row_groups))
        while row_groups and file.metadata.row_group(row_groups[0]).num_rows <= skip:
            skip -= file.metadata.row_group(row_groups.pop(0)).num_rows
        if not row_groups:
            return
        batches = file.iter_batches(batch_size=PARQUET_BATCH_ROWS, row_groups=row_groups)
        while (batch := self._next_batch(batches)) is not None:
            for record in self._rows_of(batch.slice(skip)):
                yield f"row {row_number}", record
                row_number += 1
            skip = max(0, skip - batch.num_rows)

    def count(self) -> int:
        """Rows, from the file's metadata."""
        return int(self._open().metadata.num_rows)

    def _rows_of(self, batch: Any) -> Iterator[object | DatasetParseError]:
        arrow = import_module("pyarrow")
        try:
            table = arrow.Table.from_batches([batch])
            yield from table.cast(_to_microseconds(table.schema), safe=False).to_pylist()
        except (arrow.ArrowException, ValueError, OverflowError):
            # Some value has no counterpart in Python: the other rows are read all the same.
            for number in range(batch.num_rows):
                yield self._one_row(batch.slice(number, 1))

    def _one_row(self, row: Any) -> object | DatasetParseError:
        arrow = import_module("pyarrow")
        values: dict[str, Any] = {}
        for column in row.schema.names:
            try:
                table = arrow.Table.from_batches([row.select([column])])
                [value] = table.cast(_to_microseconds(table.schema), safe=False).to_pylist()
                values |= value
            except (arrow.ArrowException, ValueError, OverflowError) as error:
                return DatasetParseError(f"The column '{column}' cannot be read: {error}")
        return values

    def _open(self) -> Any:
        try:
            import_module("pyarrow")
            parquet = import_module("pyarrow.parquet")
        except ImportError:
            raise DatasetParseError(
                f"Reading {self.path} needs the package pyarrow: install 'osmosis-ai[parquet]', or convert the"
                " file to JSONL."
            ) from None
        try:
            return parquet.ParquetFile(self.path)
        except (OSError, ValueError) as error:
            raise DatasetParseError(f"{self.path} is not a readable Parquet file: {error}") from error

    def _next_batch(self, batches: Iterator[Any]) -> Any:
        try:
            return next(batches, None)
        except (OSError, ValueError) as error:
            raise DatasetParseError(f"{self.path} is not a readable Parquet file: {error}") from error


def _to_microseconds(schema: Any) -> Any:
    arrow = import_module("pyarrow")
    return arrow.schema([field.with_type(_microseconds(field.type)) for field in schema])


def _microseconds(kind: Any) -> Any:
    """The Arrow type ``kind`` with microseconds for nanoseconds, at any depth."""
    arrow = import_module("pyarrow")
    types = arrow.types
    if types.is_timestamp(kind) and kind.unit == "ns":
        return arrow.timestamp("us", kind.tz)
    if types.is_duration(kind) and kind.unit == "ns":
        return arrow.duration("us")
    if types.is_time64(kind) and kind.unit == "ns":
        return arrow.time64("us")
    if types.is_struct(kind):
        return arrow.struct([field.with_type(_microseconds(field.type)) for field in kind.fields])
    if types.is_list(kind):
        return arrow.list_(_microseconds(kind.value_type))
    if types.is_large_list(kind):
        return arrow.large_list(_microseconds(kind.value_type))
    if types.is_fixed_size_list(kind):
        return arrow.list_(_microseconds(kind.value_type), kind.list_size)
    if types.is_map(kind):
        return arrow.map_(_microseconds(kind.key_type), _microseconds(kind.item_type))
    if types.is_dictionary(kind):
        return _microseconds(kind.value_type)
    return kind
