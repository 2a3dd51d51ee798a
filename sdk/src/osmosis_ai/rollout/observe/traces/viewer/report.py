"""The page as one file that works without a network: every row, and as many rollouts whole as fit."""

from pathlib import Path
from typing import Any

from pydantic_core import to_json

from osmosis_ai.rollout.core.files import write_whole
from osmosis_ai.rollout.observe.traces.index import TraceIndex
from osmosis_ai.rollout.observe.traces.summary import COMPLETED, Summary
from osmosis_ai.rollout.observe.traces.viewer.page import report_page
from osmosis_ai.rollout.observe.traces.viewer.rows import COLUMNS, row_of

MAX_ROWS = 50_000
MAX_DETAIL_BYTES = 32 * 1024 * 1024


def write_report(index: TraceIndex, path: Path, *, max_detail_bytes: int = MAX_DETAIL_BYTES) -> tuple[int, int]:
    """Write the report; how many rollouts have a row in it, and how many of these are there whole.

    Failed rollouts come first, then the newest.

    Raises:
        CLIError: ``path`` cannot be written.
    """
    order = sorted(enumerate(index.rollouts), key=lambda item: _rank(item[1]))[:MAX_ROWS]
    details: dict[str, list[dict[str, Any]]] = {}
    room = max_detail_bytes
    for key, rollout in order:
        size = rollout.end - rollout.start
        if size > room:
            continue
        try:
            details[str(key)] = list(index.events(key))
        except OSError:
            continue
        room -= size
    data = {
        "columns": COLUMNS,
        "rows": [row_of(key, rollout) for key, rollout in order],
        "details": details,
        "total": len(index.rollouts),
        "source": str(index.root),
        "unreadable": index.unreadable_lines,
    }
    text = to_json(data, inf_nan_mode="null").decode().replace("<", "\\u003c")
    page, _ = report_page(text)
    write_whole(path, [page])
    return len(order), len(details)


def _rank(rollout: Summary) -> tuple[bool, float]:
    return rollout.status == COMPLETED, -(rollout.last_at or 0.0)
