"""``osmosis serve --workers``: one port, one journal, no rollout twice, and a supervisor that keeps it so."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from support.faulty_trainer import FaultyTrainer
from support.plain_http import PLAIN
from support.process_fixtures import trainer
from support.server_process import TESTS, ServerProcess, environment, init_of, start_serving

from osmosis_ai.rollout.core.settings import RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.server.plan import Plan
from osmosis_ai.rollout.server.workers import Supervisor

__all__ = ["trainer"]

DEADLINE_SECONDS = 60.0
POLL_SECONDS = 0.1
"""To look through all processes takes a while, of a machine on which two servers start."""
WORKERS = 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    settings = {"SERVER_DRAIN_SECONDS": "1", "SERVER_MAX_CONCURRENT_ROLLOUTS": "40"}
    with ServerProcess(tmp_path / "journal.db", settings, "--workers", str(WORKERS)) as server:
        wait_for_workers(server.pid, WORKERS)
        yield server


def workers_of(supervisor: int) -> set[int]:
    """The process ids of the workers that are there."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if int(parent) == supervisor and state != "Z":
            found.add(int(status.parent.name))
    return found


def wait_for_workers(supervisor: int, count: int) -> set[int]:
    """Return once that many workers accept connections on their own account."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(found := {pid for pid in workers_of(supervisor) if serves(pid)}) < count:
        assert time.monotonic() < deadline, f"workers: {found}"
        time.sleep(POLL_SECONDS)
    return found


def serves(pid: int) -> bool:
    """Whether the process has opened the journal, which it does before it accepts anything."""
    try:
        return any(".owners/" in str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def init_by_itself(url: str, body: dict[str, object]) -> int:
    """An init over a connection of its own, so that any worker may get it."""
    return httpx.post(f"{url}/v1/rollout/init", json=body, **PLAIN).status_code


@pytest.mark.slow
def test_inits_repeated_across_workers_start_one_rollout_each(server: ServerProcess, trainer: FaultyTrainer) -> None:
    names = [f"rollout-{number}" for number in range(20)]
    with ThreadPoolExecutor(8) as threads:
        bodies = [init_of(name, trainer.url) for name in names for _ in range(4)]
        statuses = list(threads.map(init_by_itself, [server.url] * len(bodies), bodies))
    assert statuses == [202] * len(bodies)
    for name in names:
        assert trainer.result(name)["status"] == "COMPLETED"
        server.wait_for_state(name, "delivered")
    assert [len(trainer.chats(name)) for name in names] == [1] * len(names)
    assert [len(trainer.bodies(name)) for name in names] == [1] * len(names)


@pytest.mark.slow
def test_a_repeat_has_its_answer_from_any_worker_though_none_has_room(tmp_path: Path, trainer: FaultyTrainer) -> None:
    settings = {"SERVER_DRAIN_SECONDS": "1", "SERVER_MAX_TOTAL_ROLLOUTS": "4"}
    with ServerProcess(tmp_path / "journal.db", settings, "--workers", str(WORKERS)) as server:
        wait_for_workers(server.pid, WORKERS)
        trainer.hold_chats()
        accepted = list[dict[str, object]]()
        # Whoever is quicker accepts: both have their share once as many have been taken.
        for number in range(1000):
            body = init_of(f"rollout-{number}", trainer.url)
            if init_by_itself(server.url, body) == 202:
                accepted.append(body)
            if len(accepted) == 4:
                break
        assert len(accepted) == 4
        bodies = accepted * 10
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(init_by_itself, [server.url] * len(bodies), bodies)) == [202] * len(bodies)
            others = [body | {"max_turns": 7} for body in bodies]
            assert set(threads.map(init_by_itself, [server.url] * len(others), others)) == {409}
        assert init_by_itself(server.url, init_of("one-too-many", trainer.url)) == 429
        trainer.release_chats()
        for body in accepted:
            assert trainer.result(str(body["rollout_id"]))["status"] == "COMPLETED"
            assert len(trainer.chats(str(body["rollout_id"]))) == 1


@pytest.mark.slow
def test_both_workers_take_part(server: ServerProcess, trainer: FaultyTrainer) -> None:
    before = sockets_of(workers_of(server.pid))
    trainer.hold_chats()
    number = 0
    deadline = time.monotonic() + DEADLINE_SECONDS
    # Whoever is quicker accepts, so it takes a number of connections until each has been.
    while any(count == before[pid] for pid, count in sockets_of(workers_of(server.pid)).items()):
        assert time.monotonic() < deadline, "one worker gets everything"
        with ThreadPoolExecutor(8) as threads:
            bodies = [init_of(f"rollout-{number + index}", trainer.url) for index in range(8)]
            assert list(threads.map(init_by_itself, [server.url] * 8, bodies)) == [202] * 8
        number += 8
        trainer.wait_for_chat(*(f"rollout-{index}" for index in range(number)))
    trainer.release_chats()


def sockets_of(workers: set[int]) -> dict[int, int]:
    """How many sockets each worker has open; one of each rollout that waits for its chat call is among them."""
    return {
        pid: sum(str(link.readlink()).startswith("socket:") for link in Path(f"/proc/{pid}/fd").iterdir())
        for pid in workers
    }


def test_a_killed_worker_is_replaced_and_its_rollouts_are_reported(
    server: ServerProcess, trainer: FaultyTrainer
) -> None:
    trainer.hold_chats()
    names = [f"rollout-{number}" for number in range(16)]
    with ThreadPoolExecutor(8) as threads:
        bodies = [init_of(name, trainer.url) for name in names]
        assert list(threads.map(init_by_itself, [server.url] * len(names), bodies)) == [202] * len(names)
    trainer.wait_for_chat(*names)
    # Whoever is quicker accepts, perhaps all: the one with the most sockets has a rollout to lose.
    sockets = sockets_of(workers_of(server.pid))
    victim = max(sockets, key=lambda pid: sockets[pid])
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while victim in workers_of(server.pid):
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)
    wait_for_workers(server.pid, WORKERS)
    trainer.release_chats()
    outcomes = [trainer.result(name)["extra_fields"]["outcome"] for name in names]
    assert set(outcomes) <= {"success", "interrupted"}
    assert len([outcome for outcome in outcomes if outcome == "interrupted"]) >= 1
    assert [len(trainer.bodies(name)) for name in names] == [1] * len(names)


@pytest.mark.slow
def test_workers_end_with_a_supervisor_that_is_killed_and_the_next_server_reports(
    server: ServerProcess, trainer: FaultyTrainer
) -> None:
    server.accept_and_hold(trainer, cut="complete")
    orphans = workers_of(server.pid)
    server.kill()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while any(Path(f"/proc/{pid}").exists() for pid in orphans):
        assert time.monotonic() < deadline, "a worker has outlived its supervisor"
        time.sleep(0.02)
    trainer.release_chats()
    server.start()
    assert trainer.result("cut")["extra_fields"]["outcome"] == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
@pytest.mark.slow
def test_a_signal_drains_all_workers(server: ServerProcess, trainer: FaultyTrainer, number: signal.Signals) -> None:
    trainer.hold_chats()
    names = [f"rollout-{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        bodies = [init_of(name, trainer.url) for name in names]
        assert list(threads.map(init_by_itself, [server.url] * len(names), bodies)) == [202] * len(names)
    trainer.wait_for_chat(*names)
    server.signal(number)
    trainer.release_chats()
    assert server.exit_code() == 0
    assert {trainer.result(name)["status"] for name in names} == {"COMPLETED"}


@pytest.mark.slow
def test_without_a_journal_workers_are_refused_in_one_sentence(tmp_path: Path) -> None:
    process = start_serving(
        tmp_path, "--workers", "2", "--journal", "off", environment=environment({}), stderr=subprocess.PIPE
    )
    _, stderr = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 2
    assert b"Error: Several workers know of each other's rollouts by their journal" in stderr
    assert stderr.count(b"\n") == 1


@pytest.mark.slow
def test_workers_that_cannot_load_the_agent_end_the_server(tmp_path: Path) -> None:
    (tmp_path / "once.py").write_text(
        "import sys\n"
        "if sys.argv[0].endswith('workers.py'):\n"
        "    raise ImportError('not in a worker')\n"
        "from support.promise_agent import agent_loop\n"
    )
    process = subprocess.run(
        [sys.executable, "-m", "osmosis_ai", "serve", "-m", "once:agent_loop", "--local", "--port", "0", "-w", "2"],
        cwd=tmp_path,
        env=environment({"SERVER_JOURNAL": str(tmp_path / "j.db")}) | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert process.returncode == 1
    assert b"not in a worker" in process.stderr
    assert process.stderr.rstrip().endswith(b"Error: No worker could serve; the reason stands above.")
    assert b"Traceback" not in process.stderr


def test_the_limits_on_rollouts_are_the_servers_not_each_workers() -> None:
    settings = RolloutSettings(server=RolloutServerSettings(max_concurrent_rollouts=5, max_queued_rollouts=0))
    plan = Supervisor(Plan("a:b", None, settings), 2, None, {})._plan  # type: ignore[arg-type]
    limits = plan.settings.server
    assert (limits.max_concurrent_rollouts, limits.max_queued_rollouts, limits.max_total_rollouts) == (3, 0, 25_000)


@pytest.mark.slow
def test_a_worker_that_is_ahead_lets_its_connection_go(server: ServerProcess, trainer: FaultyTrainer) -> None:
    trainer.hold_chats()
    closed = 0
    with httpx.Client(base_url=server.url, **PLAIN) as client:
        for number in range(40):  # over one connection, as long as it is kept
            response = client.post("/v1/rollout/init", json=init_of(f"rollout-{number}", trainer.url))
            assert response.status_code == 202
            closed += response.headers.get("connection") == "close"
    trainer.release_chats()
    assert closed >= 1
    assert {trainer.result(f"rollout-{number}")["status"] for number in range(40)} == {"COMPLETED"}


@pytest.mark.slow
def test_a_stopped_worker_is_told_of_and_drains_all_the_same(server: ServerProcess, trainer: FaultyTrainer) -> None:
    trainer.hold_chats()
    names = [f"rollout-{number}" for number in range(8)]
    server.wait_for_line("Application startup complete", times=2)  # one that still starts is told of otherwise
    for name in names:
        server.accept(trainer.url, **{name: "complete"})
    trainer.wait_for_chat(*names)
    stopped = max(workers_of(server.pid))
    os.kill(stopped, signal.SIGSTOP)
    server.wait_for_line(f"Worker [{stopped}] has not come round for")
    server.signal(signal.SIGTERM)
    trainer.release_chats()
    assert server.exit_code() == 0
    assert {trainer.result(name)["status"] for name in names} <= {"COMPLETED", "ERROR"}


@pytest.mark.slow
def test_a_worker_that_can_do_nothing_any_more_is_killed_when_the_drain_must_be_over(
    tmp_path: Path, trainer: FaultyTrainer
) -> None:
    settings = {"SERVER_DRAIN_SECONDS": "0", "SERVER_FLUSH_SECONDS": "0"}
    with ServerProcess(tmp_path / "journal.db", settings, "--workers", "2") as server:
        wait_for_workers(server.pid, WORKERS)
        server.accept_and_wait_for_it(trainer.url, "held", "hold_the_interpreter")
        server.wait_for_line("has not come round for")
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 1
        (told,) = re.findall(r"Worker \[\d+\] (did not .*)", server.log.read_text())
        assert told == "did not end in time: killed; what it ran is in the journal."


@pytest.mark.slow
def test_workers_that_are_killed_while_young_are_started_anew_as_long_as_one_ever_served(
    server: ServerProcess, trainer: FaultyTrainer
) -> None:
    killed: set[int] = set()
    for _ in range(3):
        for victim in wait_for_workers(server.pid, 1):
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
    # One that is not gone yet would take the request with it.
    while killed & set(wait_for_workers(server.pid, 1)):
        time.sleep(0.05)
    server.accept(trainer.url, later="complete")
    assert trainer.result("later")["status"] == "COMPLETED"


HASTY_SUPERVISOR = """
import runpy, sys
from osmosis_ai.rollout.server import workers
workers.SLOW_START_SECONDS, workers.START_LIMIT_SECONDS, workers.START_LIMIT_FACTOR = 0.1, 1.0, 1.5
sys.argv[0] = "osmosis"
runpy.run_module("osmosis_ai", run_name="__main__")
"""
HANGS_ONCE = """
import pathlib, sys, time
if sys.argv[0].endswith("workers.py") and sys.argv[5] == "1":
    try:
        pathlib.Path("hung").touch(exist_ok=False)
        {hang}
    except FileExistsError:
        pass
from support.promise_agent import agent_loop
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "hang", ["time.sleep(1000)", "import re; re.match('(a+)+b', 'a' * 100)"], ids=["sleeps", "holds the interpreter"]
)
def test_a_worker_that_hangs_before_it_serves_is_told_of_and_replaced(tmp_path: Path, hang: str) -> None:
    (tmp_path / "hanging.py").write_text(HANGS_ONCE.format(hang=hang))
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", HASTY_SUPERVISOR, "serve", "-m", "hanging:agent_loop", "--local", "--port=0", "-w2"],
            cwd=tmp_path,
            env=environment({"SERVER_JOURNAL": str(tmp_path / "j.db")}) | {"PYTHONPATH": str(TESTS)},
            stderr=output,
            stdout=output,
        )
    try:
        deadline = time.monotonic() + 3 * DEADLINE_SECONDS  # five starts
        while not (tmp_path / "hung").exists() or len(serving := wait_for_workers(process.pid, 1)) < WORKERS:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        said = log.read_text()
        assert " s: something holds up its start, or its agent's import." in said
        assert "killed; what it ran is in the journal" in said
        assert all(f"Worker [{pid}] has died" not in said for pid in serving)
        process.terminate()
        assert process.wait(DEADLINE_SECONDS) == 0
    finally:
        process.kill()
