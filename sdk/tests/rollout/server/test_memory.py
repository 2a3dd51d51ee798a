"""Results that wait take no memory: of processes that died, and of rollouts whose trainer is away."""

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from support.faulty_trainer import CHAT_PATH, Fault, FaultyTrainer
from support.server_process import ServerProcess

from osmosis_ai.rollout.journal import Acceptance, SqliteJournal

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

MB = 1_000_000
DEADLINE_SECONDS = 90.0


class DigestingTrainer(FaultyTrainer):
    """Keeps no more than a digest of each result."""

    def __init__(self) -> None:
        self.is_away = False
        self.digests: dict[str, list[str]] = defaultdict(list)
        self.taken: set[str] = set()
        super().__init__()

    def _take(self, path: str, body: bytes) -> Fault | int:
        if path == CHAT_PATH:
            return 200
        # Ours and the agent's results both begin with it.
        rollout_id = body[: body.index(b",")].decode().partition(":")[2].strip().strip('"')
        with self._changed:
            self.digests[rollout_id].append(sha256(body).hexdigest())
            if not self.is_away:
                self.taken.add(rollout_id)
        return 503 if self.is_away else 200

    def wait_until_asked_for(self, *rollout_ids: str) -> None:
        _wait(lambda: all(self.digests[rollout_id] for rollout_id in rollout_ids))

    def wait_until_taken(self, *rollout_ids: str) -> None:
        _wait(lambda: self.taken >= set(rollout_ids))


def _wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


@pytest.fixture
def trainer() -> Iterator[DigestingTrainer]:
    with DigestingTrainer() as trainer:
        yield trainer


def content_of(rollout_id: str, size_bytes: int) -> bytes:
    text = f'{{"role":"user","content":"{"x" * size_bytes}"}}'
    return (
        f'{{"rollout_id":"{rollout_id}","status":"COMPLETED","final_messages":[{text}],"finish_reason":"stop",'
        '"extra_fields":{"outcome":"success"}}'
    ).encode()


def leave(path: Path, trainer_url: str, finished: list[str], accepted: list[str], size_bytes: int) -> dict[str, str]:
    """A journal as a process leaves it that was killed; the digests of its results."""
    digests: dict[str, str] = {}

    async def write() -> None:
        async with SqliteJournal(path) as journal:
            for name in (*finished, *accepted):
                request = b'{"messages":[{"role":"user","content":"%s"}]}' % (b"y" * size_bytes)
                about = Acceptance(f"id:{name}", name, "", trainer_url, None, b"{}", request)
                assert await journal.accept(about) is None
                if name in finished:
                    result = content_of(name, size_bytes)
                    digests[name] = sha256(result).hexdigest()
                    await journal.finish(f"id:{name}", result)

    asyncio.run(write())
    return digests


def test_what_dead_processes_left_is_delivered_within_a_memory_limit(tmp_path: Path, trainer: DigestingTrainer) -> None:
    """480 MB of results and requests, and 256 MB more than an idle server takes."""
    finished, accepted = [f"f{number}" for number in range(100)], [f"a{number}" for number in range(20)]
    with ServerProcess(tmp_path / "idle.db") as idle:
        idle_bytes = idle.memory_bytes("VmSize")
    server = ServerProcess(tmp_path / "journal.db")
    digests = leave(server.journal, trainer.url, finished, accepted, 4 * MB)
    server.memory_limit_bytes = idle_bytes + 256 * MB
    with server:
        trainer.wait_until_taken(*finished, *accepted)
        assert server.client.get("/health").status_code == 200
    assert {name: set(trainer.digests[name]) for name in finished} == {name: {digests[name]} for name in finished}
    assert all(len(set(trainer.digests[name])) == 1 for name in accepted)


def test_rollouts_that_wait_for_their_trainer_do_not_keep_their_results_in_memory(
    tmp_path: Path, trainer: DigestingTrainer
) -> None:
    names = [f"rollout-{number}" for number in range(60)]
    trainer.is_away = True
    with ServerProcess(tmp_path / "journal.db", {"CLIENT_RETRY_MAX_DELAY": "30"}) as server:
        before = 0
        for number, name in enumerate(names):  # one after the other: what they take while they run is another matter
            if number == len(names) // 3:  # by now the bound is reached, and what an allocator keeps
                before = server.memory_bytes("VmRSS")
            large = {"role": "user", "content": "x" * (4 * MB)}
            assert server.init(name, trainer.url, messages=[large]).status_code == 202
            trainer.wait_until_asked_for(name)
        view = server.client.get(f"/v1/rollout/{names[0]}").json()
        grown = server.memory_bytes("VmRSS") - before
        trainer.is_away = False
        trainer.wait_until_taken(*names)
        for name in names:
            server.wait_for_state(name, "delivered")
    assert (view["state"], view["delivery_attempts"] > 0) == ("finished", True)
    assert "HTTP 503" in view["last_error"]
    assert all(len(set(trainer.digests[name])) == 1 for name in names)
    assert grown < 140 * MB, f"{grown / MB:.0f} MB for 160 MB of results"


def test_a_result_larger_than_the_bound_goes_alone(tmp_path: Path, trainer: DigestingTrainer) -> None:
    names = [f"f{number}" for number in range(3)]
    server = ServerProcess(tmp_path / "journal.db")
    digests = leave(server.journal, trainer.url, names, [], 20 * MB)
    with server:
        trainer.wait_until_taken(*names)
    assert {name: set(trainer.digests[name]) for name in names} == {name: {digests[name]} for name in names}
