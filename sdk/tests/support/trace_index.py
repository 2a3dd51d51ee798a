"""An index of a folder of traces, and all that it tells."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.observe.traces.index import TraceIndex


def opened(folder: Path) -> TraceIndex:
    """An index that has read the folder, and let go of its store."""
    index = TraceIndex(folder, keep=True)
    index.refresh()
    assert index.store is not None
    index.store.close()
    return index


def told(index: TraceIndex) -> list[dict[str, Any]]:
    """All that is known of each rollout, but for when it was read."""
    return sorted(
        ({**asdict(one), "version": 0} for one in index.rollouts), key=lambda one: (one["file"], one["start"])
    )


def fresh(folder: Path) -> list[dict[str, Any]]:
    index = TraceIndex(folder)
    index.refresh()
    return told(index)
