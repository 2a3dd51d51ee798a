"""Where a server's traces go: a folder of its own for each start, below the one that is named."""

import itertools
import time
from pathlib import Path

TRACES_VARIABLE = "ROLLOUT_DEBUG_DIR"
"""The folder for traces, where no argument names one."""


def trace_folder(parent: str | Path) -> Path:
    """``<parent>/<unix time>`` for a start at this moment, ``<unix time>-2`` and so on where that is taken.

    Nothing is made.
    """
    started = f"{int(time.time())}"
    names = itertools.chain([started], (f"{started}-{number}" for number in itertools.count(2)))
    return next(folder for folder in (Path(parent, name) for name in names) if not folder.exists())
