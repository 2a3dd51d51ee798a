"""Writing metrics out: of one process, or of all worker processes that serve one port.

Workers keep their values in files of one folder (prometheus-client's multiprocess mode), so that any of them answers
for all, and what a dead one counted is not lost. The parent sets the folder up with ``worker_metrics`` before it starts
them; nothing of prometheus-client is imported there.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_LIVE_FILE = re.compile(r"gauge_live\w+?_(\d+)\.db")
_SUMMED = ("process_cpu_seconds", "process_resident_memory_bytes", "process_virtual_memory_bytes", "process_open_fds")


class WorkerMetrics:
    """The metrics of the worker processes, as their parent keeps house for them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ended(self, pid: int) -> None:
        """The worker ``pid`` is gone: what it counted stays, what it had at the time (running rollouts) does not."""
        # Counters are in files of other names and stay: a sum that falls would look like a restart of the server.
        for path in self._folder.glob(f"gauge_live*_{pid}.db"):
            path.unlink(missing_ok=True)


@contextmanager
def worker_metrics() -> Iterator[WorkerMetrics]:
    """For the parent of several workers: while it lasts, processes started from here share their metrics.

    Sets ``PROMETHEUS_MULTIPROC_DIR`` in this process's environment, to a folder that is removed at the end. Start the
    workers as new processes (spawn, not fork), and call ``ended`` for each that is gone.
    """
    before = os.environ.get(FOLDER_VARIABLE)
    with tempfile.TemporaryDirectory(prefix="osmosis-metrics-", ignore_cleanup_errors=True) as folder:
        # prometheus-client reads it when it is imported, hence before the workers start.
        os.environ[FOLDER_VARIABLE] = folder
        try:
            yield WorkerMetrics(Path(folder))
        finally:
            if before is None:
                os.environ.pop(FOLDER_VARIABLE, None)
            else:
                os.environ[FOLDER_VARIABLE] = before


def shared_folder() -> str | None:
    """Where worker processes share their metrics; ``None`` in one that serves alone."""
    return os.environ.get(FOLDER_VARIABLE)


def exposed(registry: "CollectorRegistry") -> "CollectorRegistry":
    """What is rendered for ``registry``: itself, with figures of this process, or all workers that share a folder."""
    from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

    if not (folder := shared_folder()):
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        return registry
    from prometheus_client.multiprocess import MultiProcessCollector  # type: ignore[attr-defined,unused-ignore]

    of_all = CollectorRegistry()
    MultiProcessCollector(of_all, folder)  # type: ignore[no-untyped-call,unused-ignore]
    of_all.register(_WorkerProcesses(Path(folder)))
    return of_all


def render(registry: "CollectorRegistry", accept: str) -> tuple[bytes, str]:
    """The text, and its content type."""
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _WorkerProcesses:
    """``process_*`` of all living workers together, where the system has /proc."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def describe(self) -> Iterable[Any]:
        return ()

    def collect(self) -> Iterable[Any]:
        from prometheus_client import CollectorRegistry, ProcessCollector

        pids = {int(found[1]) for path in self._folder.iterdir() if (found := _LIVE_FILE.fullmatch(path.name))}
        sums: dict[str, Any] = {}
        for pid in sorted(pids):
            collector = ProcessCollector(pid=lambda pid=pid: pid, registry=CollectorRegistry())  # type: ignore[misc]
            for family in collector.collect():
                if family.name not in _SUMMED:
                    continue
                if (known := sums.get(family.name)) is None:
                    sums[family.name] = family
                else:
                    sample, other = known.samples[0], family.samples[0]
                    known.samples[0] = sample._replace(value=sample.value + other.value)
        return sums.values()
