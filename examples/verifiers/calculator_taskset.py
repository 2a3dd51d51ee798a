"""The calculator's problems (``test_data.jsonl``) as a taskset of verifiers. It scores nothing: the server does."""

import json
from collections.abc import Iterable
from pathlib import Path

from verifiers.v1 import Task, TaskData, Taskset, TasksetConfig

__all__ = ["CalculatorTaskset"]


class CalculatorConfig(TasksetConfig):
    path: Path = Path("test_data.jsonl")


class CalculatorData(TaskData):
    ground_truth: str


class CalculatorTask(Task[CalculatorData]):
    pass


class CalculatorTaskset(Taskset[CalculatorTask, CalculatorConfig]):
    def load(self) -> Iterable[CalculatorTask]:
        for line in self.config.path.read_text().splitlines():
            row = json.loads(line)
            yield CalculatorTask(
                CalculatorData(
                    system_prompt=row["system_prompt"], prompt=row["user_prompt"], ground_truth=row["ground_truth"]
                )
            )
