"""``python -m training.table RUN...``: the results of runs as a Markdown table, from their files."""

import sys
from pathlib import Path
from typing import Any

from training import records
from training.config import SETTINGS_FILE

HEADER = (
    "| run | seed | level | steps | training | set | reward before | reward after"
    " | tool right before | tool right after | differ after |"
)


def main() -> int:
    """Print the table; exit code 2 without a run, 1 if one is not finished."""
    folders = [Path(argument) for argument in sys.argv[1:]]
    if not folders:
        print("Usage: python -m training.table RUN...", file=sys.stderr)  # noqa: T201 - a command's output
        return 2
    lines = [HEADER, "|" + "---|" * (HEADER.count("|") - 1)]
    for folder in folders:
        rows = table_rows(folder)
        if not rows:
            print(f"Error: {folder} holds no finished run.", file=sys.stderr)  # noqa: T201
            return 1
        lines += rows
    print("\n".join(lines))  # noqa: T201
    return 0


def table_rows(folder: Path) -> list[str]:
    """One line for each held-out set of a run; none if it is not finished."""
    config = records.read_document(folder / SETTINGS_FILE) or {}
    evaluations = records.read_document(folder / records.EVALUATIONS) or {}
    steps = list(records.read_lines(folder / records.STEPS))
    if not config or "after" not in evaluations:
        return []
    minutes = sum(step["seconds"] for step in steps) / 60
    rows = []
    for name, after in evaluations["after"].items():
        before = evaluations["before"][name]
        cells = [
            folder.name,
            config["seed"],
            config["level"],
            len(steps),
            f"{minutes:.1f} min",
            name,
            *(_number(summary[field]) for field in ("reward", "tool_right") for summary in (before, after)),
            after["disputed"],
        ]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return rows


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
