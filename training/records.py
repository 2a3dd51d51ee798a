"""The folder of one run: what is in it, and how it is written.

``config.json`` the settings, ``steps.jsonl`` a line a step, ``rollouts.jsonl`` a line a rollout attempt,
``server.jsonl`` a line a restart of the server, ``evaluations.json`` before and after, ``model/`` the trained weights,
``checkpoints/`` what ``--resume`` needs, as TRL keeps it, ``report.html`` and ``reward.png``. Lines are flushed as they
are written.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training.errors import TrainingError

STEPS = "steps.jsonl"
ROLLOUTS = "rollouts.jsonl"
SERVER = "server.jsonl"
EVALUATIONS = "evaluations.json"
CHECKPOINTS = "checkpoints"
LAST_WRITTEN = "trainer_state.json"
"""Of the files of a checkpoint: without it, the others are not whole either."""
MODEL = "model"


class RunFolder:
    """Writes one run."""

    def __init__(self, path: Path, *, is_resumed: bool) -> None:
        if not is_resumed and (path / EVALUATIONS).exists():
            raise TrainingError(f"{path} holds a run already: give another --output, or --resume to go on with it.")
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"Cannot write {path}: {error.strerror or error}.") from None

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Add one line to a JSONL file."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def write(self, name: str, document: Any) -> None:
        """Write a JSON file, whole or not at all."""
        part = self.path / f".{name}.part"
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        part.replace(self.path / name)

    def checkpoint(self) -> Path | None:
        """The last one that is whole; TRL calls it after its step."""
        whole = [file.parent for file in self.path.glob(f"{CHECKPOINTS}/*/{LAST_WRITTEN}")]
        return max(whole, key=_step_of, default=None)

    def steps_saved(self) -> int:
        """The steps that it holds."""
        last = self.checkpoint()
        return 0 if last is None else _step_of(last)

    def drop_steps_after(self, step: int) -> None:
        """Forget the lines of steps that the checkpoint does not hold; they will be made again."""
        kept = [line for line in read_lines(self.path / STEPS) if line["step"] <= step]
        (self.path / STEPS).write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSONL file; a torn last line is passed over, a missing file has none."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def read_document(path: Path) -> Any:
    """A JSON file, ``None`` if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
