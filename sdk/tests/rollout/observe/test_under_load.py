"""``/metrics`` of real server processes, read again and again while rollouts are in flight."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from support.fake_trainer import FakeTrainer
from support.measured_server import measured_server
from support.plain_http import PLAIN
from support.processes import ServingProgram
from support.rollouts import init_body
from support.scrapes import Scrape

pytestmark = pytest.mark.slow

ROLLOUTS = 120
TURNS = 2
TOOLS = ("add", "fail")
SCRAPES_IN_FLIGHT = 5
DEADLINE_SECONDS = 40.0
GROWING = (
    "osmosis_inits_accepted_total",
    "osmosis_rollouts_ended_total",
    "osmosis_llm_latency_seconds_count",
    "osmosis_tool_latency_seconds_count",
    "osmosis_delivery_attempts_total",
    "osmosis_journal_latency_seconds_count",
)


def scrape(server: ServingProgram) -> Scrape:
    answer = server.get("/metrics")
    assert answer.status_code == 200, answer.text
    return Scrape(answer.text)


def scrape_until(server: ServingProgram, holds: Callable[[Scrape], bool]) -> Scrape:
    deadline = time.monotonic() + DEADLINE_SECONDS
    found = None
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):  # of a worker that has just been killed
            if holds(found := scrape(server)):
                return found
        time.sleep(0.02)
    raise AssertionError(found and {name: found.total(name) for name in (*GROWING, "osmosis_rollouts")})


@contextmanager
def scraping(server: ServingProgram) -> Iterator[list[Scrape]]:
    """Scrape as fast as the answers come."""
    scrapes: list[Scrape] = []
    ends = threading.Event()

    def go_on() -> None:
        while not ends.is_set():
            scrapes.append(scrape(server))

    with ThreadPoolExecutor(1) as pool:
        scraper = pool.submit(go_on)
        try:
            yield scrapes
        finally:
            ends.set()
        scraper.result(DEADLINE_SECONDS)


def drive(server: ServingProgram, trainer: FakeTrainer) -> None:
    """Start all rollouts, eight inits at a time, every tenth of them sent twice."""
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", **PLAIN) as client:

        def one(number: int) -> None:
            metadata = {"turns": TURNS, "tools": TOOLS, "reward": number % 2}
            body = init_body(f"r{number}", server_url=trainer.url, metadata=metadata)
            for _ in range(2 if number % 10 == 0 else 1):
                assert client.post("/v1/rollout/init", json=body).status_code == 202
            assert client.post("/v1/rollout/init", json={}).status_code == 422

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(ROLLOUTS)))


def wait_for_results(trainer: FakeTrainer) -> None:
    for number in range(ROLLOUTS):
        trainer.wait_for_result(f"r{number}")


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_counted_adds_up(tmp_path: Path, trainer: FakeTrainer, workers: int) -> None:
    with measured_server(tmp_path, "--workers", str(workers)) as server:
        server.wait_until_serving()
        with scraping(server) as scrapes:
            trainer.hold_chats()
            drive(server, trainer)
            deadline = time.monotonic() + DEADLINE_SECONDS
            while len(scrapes) <= SCRAPES_IN_FLIGHT:
                assert time.monotonic() < deadline, f"{len(scrapes)} scrapes"
                time.sleep(0.01)
            trainer.release_chats()
            wait_for_results(trainer)
            found = scrape_until(
                server,
                lambda found: (
                    found.total("osmosis_rollouts") == 0 and found.total("osmosis_rollouts_ended_total") == ROLLOUTS
                ),
            )
    assert len(scrapes) > SCRAPES_IN_FLIGHT
    for before, after in zip(scrapes, [*scrapes[1:], found], strict=True):
        for name in GROWING:
            assert before.total(name) <= after.total(name)
    for other in scrapes:
        assert all(other("osmosis_rollouts", state=state) >= 0 for state in ("queued", "running", "delivering"))
        assert other.total("osmosis_rollouts") <= ROLLOUTS
    assert any(other.total("osmosis_rollouts") > 0 for other in scrapes), "nothing was seen in flight"

    assert found("osmosis_inits_accepted_total") == ROLLOUTS
    assert found("osmosis_inits_repeated_total") == ROLLOUTS / 10
    assert found("osmosis_inits_refused_total", reason="invalid") == ROLLOUTS
    ended = {"status": "COMPLETED", "outcome": "success", "finish_reason": "stop"}
    assert found("osmosis_rollouts_ended_total", **ended) == ROLLOUTS
    assert found("osmosis_rollout_turns_sum") == TURNS * ROLLOUTS
    assert found("osmosis_rollout_reward_count") == ROLLOUTS
    assert found("osmosis_rollout_reward_points_total", sign="positive") == ROLLOUTS / 2
    assert found("osmosis_llm_latency_seconds_count", outcome="ok") == TURNS * ROLLOUTS
    assert found("osmosis_tool_latency_seconds_count", tool="add", outcome="ok") == TURNS * ROLLOUTS
    assert found("osmosis_tool_latency_seconds_count", tool="fail", outcome="error") == TURNS * ROLLOUTS
    assert found("osmosis_delivery_attempts_total", verdict="acknowledged") == ROLLOUTS
    assert found("osmosis_journal_latency_seconds_count", operation="settle") == ROLLOUTS
    assert found("osmosis_rollout_slots") == 100
    assert found("process_resident_memory_bytes") > workers * 10_000_000
    assert found("osmosis_event_loop_lag_seconds_count") > 0


def workers_of(server: ServingProgram) -> set[int]:
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return {int(pid) for pid in children.split()}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the workers in /proc")
def test_a_worker_that_dies_leaves_its_counts_and_takes_its_rollouts_along(
    tmp_path: Path, trainer: FakeTrainer
) -> None:
    trainer.hold_chats()
    with measured_server(tmp_path, "--workers", "2") as server:
        server.wait_until_serving()
        for number in range(12):
            assert server.init(init_body(f"r{number}", server_url=trainer.url)).status_code == 202
        scrape_until(server, lambda found: found("osmosis_rollouts", state="running") == 12)
        workers = workers_of(server)
        os.kill(min(workers), signal.SIGKILL)
        scrape_until(server, lambda found: len(workers_of(server) - workers) == 1)
        trainer.release_chats()
        # The new worker reports what the dead one ran.
        found = scrape_until(
            server, lambda found: found("osmosis_delivery_attempts_total", verdict="acknowledged") == 12
        )
        assert found("osmosis_inits_accepted_total") == 12
        assert found.total("osmosis_rollouts_ended_total") == 12
        scrape_until(server, lambda found: found.total("osmosis_rollouts") == 0)
        # What the dead one had at the time is gone: 50 slots of each that lives.
        scrape_until(server, lambda found: found("osmosis_rollout_slots") == 100)
