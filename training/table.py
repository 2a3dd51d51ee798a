"""``python -m training.table RUN... [--picture FILE]``: the results of runs, as a Markdown table and in one picture."""

import argparse
import sys
from pathlib import Path
from typing import Any

from training import records
from training.config import SETTINGS_FILE
from training.plots import draw_runs

HEADER = (
    "| run | seed | level | steps | training | set | reward before | reward after"
    " | tool right before | tool right after | differ after |"
)


def main() -> int:
    """Print the table; exit code 2 if the command line is wrong, 1 if a run is not finished."""
    parser = argparse.ArgumentParser(prog="python -m training.table", description="Results of runs, side by side.")
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="Folder of a finished run.")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="Draw the rewards of all runs, as PNG.")
    arguments = parser.parse_args()
    lines = [HEADER, "|" + "---|" * (HEADER.count("|") - 1)]
    for folder in arguments.runs:
        rows = table_rows(folder)
        if not rows:
            print(f"Error: {folder} holds no finished run.", file=sys.stderr)  # noqa: T201 - a command's output
            return 1
        lines += rows
    print("\n".join(lines))  # noqa: T201
    if arguments.picture is not None:
        steps = {folder.name: list(records.read_lines(folder / records.STEPS)) for folder in arguments.runs}
        arguments.picture.write_bytes(draw_runs(steps))
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
