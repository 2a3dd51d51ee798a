import subprocess
import sys
from pathlib import Path

from osmosis_ai.rollout.observe.exposition import FOLDER_VARIABLE

WORKER = """
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from osmosis_ai.rollout.observe import unwritten
unwritten.use()
unwritten.use()
registry = CollectorRegistry()
counter = Counter("jobs", "Jobs.", ["kind"], registry=registry)
gauge = Gauge("running", "Running.", registry=registry, multiprocess_mode="livesum")
histogram = Histogram("size", "Size.", registry=registry, buckets=(1, 10))

def told():
    from prometheus_client.multiprocess import MultiProcessCollector
    shared = CollectorRegistry()
    MultiProcessCollector(shared)
    names = ("jobs_total", {"kind": "a"}), ("running", {}), ("size_count", {}), ("size_sum", {})
    return [shared.get_sample_value(*name) for name in names]

counter.labels("a").inc(2)
histogram.observe(5)
gauge.set(3)
gauge.inc()
print(told(), counter.labels("a")._value.get())
unwritten.write()
unwritten.write()
print(told(), counter.labels("a")._value.get())
counter.labels("a").inc()
histogram.observe(0.5)
gauge.set(1)
unwritten.write()
print(told(), gauge._value.get())
"""


def test_what_was_added_is_seen_by_others_once_it_was_written(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        env={FOLDER_VARIABLE: str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "[0.0, 3.0, 0.0, 0.0] 2.0",
        "[2.0, 4.0, 1.0, 5.0] 2.0",
        "[3.0, 1.0, 2.0, 5.5] 1.0",
    ]
