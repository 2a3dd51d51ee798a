"""Runs that were saved, read back: results of ``osmosis trainer``, ``test`` and ``eval``, and folders of traces.

What a file does not say is not made up: a ``SavedRun`` has ``None`` there. Everything read is foreign.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from osmosis_ai.rollout.core.files import open_regular
from osmosis_ai.rollout.core.reward_parts import REWARD_COMPONENTS, known_components, readable_components
from osmosis_ai.rollout.core.trace.format import TRACE_SUFFIX, TraceEvent
from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.observe.traces.reader import MAX_LINE_BYTES, trace_files

MAX_DOCUMENT_BYTES = 1024**3
"""Larger results are read as lines: decoded, they would take several times that."""
COMPLETED = "COMPLETED"
_TOLD = ("status", "finish_reason", "reward", "metrics", "extra_fields")
REWARD_PROBLEM = "reward"  # osmosis test: the agent completed, but with a reward that is none


class SavedRunsError(CLIError):
    """A file that holds no saved runs, in one sentence."""


@dataclass
class SavedRun:
    """One run as its file tells of it."""

    source: str
    """File, and place in it where it holds many."""
    row_index: int | None = None
    repeat: int | None = None
    rollout_id: str | None = None
    completed: bool = True
    messages: list[dict[str, Any]] | None = None
    """The conversation, whole."""
    has_summaries: bool = False
    """Whether the file holds excerpts of messages instead."""
    ground_truth: Any = None
    metadata: dict[str, Any] | None = None
    reward: float | None = None
    """As it was."""
    reward_components: dict[str, float] = field(default_factory=dict)
    """What ``reward`` was made of."""
    result: dict[str, Any] | None = None
    """What the trainer was told of the run but its messages: ``finish_reason``, ``metrics``, ``extra_fields``."""
    scores: dict[str, float] = field(default_factory=dict)
    """Of eval functions, by path."""
    components: dict[str, dict[str, float]] = field(default_factory=dict)
    """What these are made of."""


def read_saved_runs(path: Path) -> Iterator[SavedRun]:
    """The runs in a results file, or in a folder of traces and its subfolders.

    Raises:
        SavedRunsError: there is no such file or folder, it cannot be read, or holds something else.
    """
    if path.is_dir():
        files = sorted(Path(entry.path) for entry in trace_files(path))
        if not files:
            raise SavedRunsError(f"{path} holds no traces: no file in it ends in {TRACE_SUFFIX}.")
        for file in files:
            yield from _runs_of_lines(file)
    elif path.suffix.lower() == TRACE_SUFFIX:
        yield from _runs_of_lines(path)
    else:
        yield from _runs_of_document(path)


def recorded_dataset(path: Path) -> tuple[Path, str | None] | None:
    """The dataset that a results file says its rows are from, if that is there, and the ``--columns`` of it."""
    if path.is_dir():
        return None
    is_lines = path.suffix.lower() == TRACE_SUFFIX
    document = next((header for _, header in _lines(path)), {}) if is_lines else _document(path)
    for section in ("config", "settings"):  # the second: of a trainer, before all had the first
        told = _object(document.get(section))
        told = {"path": told.get("dataset"), "columns": told.get("columns"), **_object(told.get("dataset"))}
        if isinstance(named := told["path"], str) and Path(named).is_file():
            return Path(named), _text(told["columns"])
    return None


def _runs_of_document(path: Path) -> Iterator[SavedRun]:
    document = _document(path)
    results, rows = document.get("results"), document.get("rows")
    if isinstance(results, list):
        for position, entry in enumerate(results):
            yield _run_of_entry(_object(entry), f"{path}, result {position}")
    elif isinstance(rows, list):
        for row in map(_object, rows):
            for run in _objects(row.get("runs")):
                where = f"{path}, row {row.get('row_index')}, run {run.get('run_index')}"
                yield _run_of_entry({**run, "row_index": row.get("row_index")}, where)
    else:
        raise SavedRunsError(
            f"{path} holds no results: name a file that osmosis trainer, test or eval wrote with -o, or a trace folder."
        )


def _document(path: Path) -> dict[str, Any]:
    try:
        with _opened(path) as file:
            if os.fstat(file.fileno()).st_size > MAX_DOCUMENT_BYTES:
                lines = path.with_suffix(TRACE_SUFFIX)
                raise SavedRunsError(
                    f"{path} is too large to be read at once: name {lines}, which is read line by line."
                )
            document = json.loads(file.read())
    except OSError as error:
        raise SavedRunsError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise SavedRunsError(f"{path} is not JSON: {error}") from None
    return _object(document)


def _runs_of_lines(path: Path) -> Iterator[SavedRun]:
    """A JSONL file is a stream of results, or the trace of one rollout: events have an ``event``.

    A run that failed and was made again, when the stream was gone on with, counts as it ended at last.
    """
    completed = {_identity(entry) for _, entry in _lines(path) if "row_index" in entry and _completed(entry)}
    events: list[dict[str, Any]] = []
    for line_number, entry in _lines(path):
        if "event" in entry:
            events.append(entry)
        elif "row_index" in entry and (_completed(entry) or _identity(entry) not in completed):
            yield _run_of_entry(entry, f"{path}, line {line_number}")
    if events:
        yield _run_of_trace(events, str(path))


def _identity(entry: Mapping[str, Any]) -> str:
    return repr([entry.get(name) for name in ("row_index", "repeat", "run_index", "model_tag")])


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects in a file; what a crash left half written is passed over."""
    try:
        with _opened(path) as file:
            for line_number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), start=1):
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(entry, dict):
                    yield line_number, entry
    except OSError as error:
        raise SavedRunsError(f"Cannot read {path}: {error.strerror or error}.") from error


def _opened(path: Path) -> IO[bytes]:
    return os.fdopen(open_regular(path, os.O_RDONLY, follow=True), "rb")


def _run_of_entry(entry: Mapping[str, Any], source: str) -> SavedRun:
    metadata = entry.get("metadata")
    repeat = entry.get("repeat", entry.get("run_index"))
    return SavedRun(
        source=source,
        row_index=_integer(entry.get("row_index")),
        repeat=_integer(repeat),
        rollout_id=_text(entry.get("rollout_id")),
        completed=_completed(entry),
        messages=_conversation(entry.get("final_messages")) or _conversation(entry.get("messages")),
        ground_truth=entry.get("ground_truth", _object(metadata).get("ground_truth")),
        metadata=metadata if isinstance(metadata, dict) else None,
        reward=_number(entry.get("reward")),
        reward_components=readable_components(entry.get(REWARD_COMPONENTS))
        or known_components(entry.get("extra_fields")),
        result={name: entry[name] for name in _TOLD if name in entry} if "finish_reason" in entry else None,
        components={name: readable_components(parts) for name, parts in _object(entry.get("components")).items()},
        scores={name: score for name, score in _object(entry.get("scores")).items() if _number(score) is not None},
    )


def _completed(entry: Mapping[str, Any]) -> bool:
    if isinstance(status := entry.get("status"), str):
        return status == COMPLETED
    return entry.get("success") is not False or entry.get("error_kind") == REWARD_PROBLEM


def _run_of_trace(events: Iterable[Mapping[str, Any]], source: str) -> SavedRun:
    run = SavedRun(source)
    for event in events:
        run.rollout_id = _text(event.get("rollout_id")) or run.rollout_id
        run.has_summaries |= "message_summary" in event or "messages_summary" in event
        run.completed &= event.get("event") != TraceEvent.ROLLOUT_ERROR
        if event.get("event") == TraceEvent.ROLLOUT_RESULT:
            run.completed &= event.get("status") == COMPLETED
            run.result = {name: event[name] for name in _TOLD if name in event}
            run.reward_components = known_components(event.get("extra_fields"))
        run.reward = _number(event.get("reward")) if "reward" in event else run.reward
        if messages := _conversation(event.get("final_messages")) or _conversation(event.get("messages")):
            run.messages = messages
        elif isinstance(message := event.get("message"), dict) and "role" in message:
            run.messages = [*(run.messages or []), message]
        metadata = event.get("metadata", _object(event.get("request")).get("metadata"))
        if isinstance(metadata, dict):
            run.metadata = metadata
        for place in (_object(metadata), event):
            run.ground_truth = place.get("ground_truth", run.ground_truth)
            row_index = _integer(place.get("row_index"))
            run.row_index = run.row_index if row_index is None else row_index
    return run


def _conversation(value: object) -> list[dict[str, Any]] | None:
    if isinstance(value, list) and value and all(isinstance(item, dict) and "role" in item for item in value):
        return value
    return None


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
