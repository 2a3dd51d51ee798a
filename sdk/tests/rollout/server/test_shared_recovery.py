"""What a dead replica left is shared by those that live, whichever hears of it first."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.faulty_trainer import FaultyTrainer
from support.postgres import Database, database, needs_postgres
from support.processes import own_environment
from support.replica import Replica
from support.server_process import TESTS

from osmosis_ai.rollout.journal.postgres.address import parse
from osmosis_ai.rollout.journal.postgres.link import connect

pytestmark = [pytest.mark.slow, needs_postgres, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

LEASE = 8
AMOUNT = 2000
RESULT_BYTES = 30_000
MEMORY_BYTES = 20_000_000
"""Of a replica, beside what it had: less than the results of its share, which are 30 MB."""
DEADLINE_SECONDS = 120.0
FILL = f"""
import asyncio, sys
from osmosis_ai.rollout.journal import Acceptance, PostgresJournal
url, trainer, result = sys.argv[1], sys.argv[2], sys.argv[3] + "x" * {RESULT_BYTES}
async def main():
    async with PostgresJournal(url) as journal:
        async def write(number):
            key = f"id:left-{{number}}"
            await journal.accept(Acceptance(key, f"left-{{number}}", "", trainer, "callback-key", b"{{}}", b"{{}}"))
            await journal.finish(key, (result % number + '"}}}}').encode())
        for first in range(0, {AMOUNT}, 200):
            await asyncio.gather(*map(write, range(first, first + 200)))
        print("filled", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
RESULT = '{"rollout_id": "left-%d", "status": "COMPLETED", "final_messages": [], "extra_fields": {"large": "'


@pytest.fixture(scope="module")
def postgres() -> Iterator[Database]:
    with database() as running:
        yield running


@contextmanager
def one_that_left_results(url: str, trainer: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", FILL, url, trainer, RESULT],
        cwd=TESTS,
        env=own_environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as filler:
        try:
            assert filler.stdout is not None
            assert filler.stdout.readline() == "filled\n"
            yield filler
        finally:
            filler.kill()


def shares(url: str) -> dict[int, int]:
    """How many results each owner has delivered."""

    async def ask() -> list[Any]:
        connection = await connect(parse(url), "test")
        try:
            rows: list[Any] = await connection.fetch(
                "SELECT epoch, count(*) AS amount FROM rollouts WHERE state = 'delivered' GROUP BY epoch"
            )
        finally:
            await connection.close()
        return rows

    return {row["epoch"]: row["amount"] for row in asyncio.run(ask())}


def test_two_replicas_share_what_a_dead_one_left(tmp_path: Path, postgres: Database) -> None:
    url = postgres.new_url(lease=LEASE)
    with (
        FaultyTrainer() as trainer,
        Replica(tmp_path, "one", url) as one,
        Replica(tmp_path, "two", url) as two,
        one_that_left_results(url, trainer.url) as dead,
    ):
        before = [replica.memory_bytes("VmRSS") for replica in (one, two)]
        dead.kill()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while sum((found := shares(url)).values()) < AMOUNT:
            assert time.monotonic() < deadline, found
            time.sleep(0.5)
        assert len(found) == 2, found
        assert min(found.values()) >= AMOUNT / 4, found
        assert len(trainer.kept()) == AMOUNT
        assert json.loads(trainer.bodies("left-0")[0])["status"] == "COMPLETED"
        for replica, used in zip((one, two), before, strict=True):
            assert replica.memory_bytes("VmHWM") - used < MEMORY_BYTES
