"""Values that worker processes share, added up in memory and written a few times a second.

prometheus-client writes each increment into a file that all workers read, which for the twenty or so of a rollout costs
more than everything else that counting does. Here an increment is an addition; ``write`` brings the file up to date.
A worker that is killed takes along what it counted since the last time.
"""

import threading
from typing import Any

_lock = threading.Lock()
_unwritten: list["UnwrittenValue"] = []


class UnwrittenValue:
    """A value in front of one of prometheus-client's, called as that is called."""

    # As prometheus-client's own class of values in files says.
    _multiprocess = True
    _written_class: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._written = self._written_class(*args, **kwargs)
        self._added = 0.0
        self._waits = False

    def inc(self, amount: float) -> None:
        with _lock:
            self._added += amount
            if not self._waits:
                self._waits = True
                _unwritten.append(self)

    def set(self, value: float, timestamp: float | None = None) -> None:
        with _lock:
            # What is set replaces what was added, written or not.
            self._added = 0.0
            self._written.set(value, timestamp)

    def get(self) -> float:
        with _lock:
            return float(self._written.get() + self._added)

    def set_exemplar(self, exemplar: Any) -> None:
        self._written.set_exemplar(exemplar)

    def get_exemplar(self) -> Any:
        return self._written.get_exemplar()


def use() -> None:
    """Have all metrics made in this process from now on add up in memory first."""
    from prometheus_client import values

    # Once: twice would put one in front of another, and each value would be written late twice.
    if values.ValueClass is not UnwrittenValue:
        UnwrittenValue._written_class = values.ValueClass
        values.ValueClass = UnwrittenValue


def write() -> None:
    """Write what was added since the last time."""
    with _lock:
        waiting = _unwritten.copy()
        _unwritten.clear()
        for value in waiting:
            value._waits = False
            value._written.inc(value._added)
            value._added = 0.0
