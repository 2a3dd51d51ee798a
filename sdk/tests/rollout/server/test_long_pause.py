"""A pause of the trainer in the middle of 500 rollouts, longer than the limit of each, loses none of them.

In life it has ten minutes, as has the limit; here both have ten seconds, and the trainer is away in every way there is.
"""

import time
from collections import Counter
from pathlib import Path

import pytest
from support.faulty_trainer import FaultyTrainer
from support.server_process import ServerProcess

ROLLOUTS = 500
LIMIT_SECONDS = 10
PAGE = b"<html><body><h1>404 Not Found</h1></body></html>"


def wait_until_all_are_kept(trainer: FaultyTrainer, ids: list[str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not trainer.kept() >= set(ids) and time.monotonic() < deadline:
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_none_of_500_rollouts_is_lost(tmp_path: Path) -> None:
    settings = {
        "SERVER_REQUEST_TIMEOUT_SECONDS": str(LIMIT_SECONDS),
        "SERVER_MAX_CONCURRENT_ROLLOUTS": "200",
        "CLIENT_RETRY_MAX_DELAY": "2",
    }
    ids = [f"r{number}" for number in range(ROLLOUTS)]
    with FaultyTrainer() as trainer, ServerProcess(tmp_path / "journal.db", settings) as server:
        trainer.hold_chats()
        for rollout_id in ids:
            server.accept(trainer.url, **{rollout_id: "chat_again"})
        trainer.wait_for_chat(*ids[:100])
        began = time.monotonic()
        trainer.instead = (503, b'{"detail": "The weights are updated."}')
        trainer.release_chats()  # those under way are answered; their next calls, and those of all others, are not
        time.sleep(LIMIT_SECONDS / 2)
        trainer.go_away()
        time.sleep(LIMIT_SECONDS / 3)
        trainer.instead = (404, PAGE)
        trainer.come_back()
        time.sleep(LIMIT_SECONDS / 2)
        assert time.monotonic() - began > LIMIT_SECONDS
        assert len(trainer.kept()) == 0
        trainer.instead = None
        wait_until_all_are_kept(trainer, ids, 60)
        outcomes = Counter(trainer.result(rollout_id)["extra_fields"]["outcome"] for rollout_id in ids)
        assert outcomes == {"success": ROLLOUTS}
        assert all(len(set(trainer.bodies(rollout_id))) == 1 for rollout_id in ids)
        metrics = server.client.get("/metrics").text
        assert 'osmosis_llm_pause_seconds_count{cause="refused"}' in metrics
