"""What the journal's tests share: acceptances to write, a clock to set, other processes that use a journal."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from osmosis_ai.rollout.journal import Acceptance, Clock, Journal, JournalRecord

DEADLINE_SECONDS = 60.0


class TestClock(Clock):
    """Time passes when told to (``now``), the wall clock may be set (``step``), the machine rebooted (``boots``)."""

    __test__ = False

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now
        self.step = 0.0
        self.boots = 1

    def wall(self) -> float:
        return self.now + self.step

    def steady(self) -> float:
        return self.now - 1_000_000.0

    def boot(self) -> str:
        return f"boot {self.boots}"


def an_acceptance(key: str = "key", *, rollout_id: str = "rollout", request: bytes = b'{"n": 1}') -> Acceptance:
    return Acceptance(
        key=key,
        rollout_id=rollout_id,
        fingerprint="fingerprint",
        server_url="http://127.0.0.1:9000",
        api_key="callback-secret",
        init_reply=b'{"tools": []}',
        request=request,
    )


async def claim_all(journal: Journal, *, page: int = 100) -> list[JournalRecord]:
    claimed: list[JournalRecord] = []
    while records := await journal.claim_abandoned(page):
        claimed += records
    return claimed


class OtherProcess:
    """A process that runs one command of ``journal_process`` and talks in lines."""

    def __init__(self, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.journal_process", *map(str, arguments)],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def read_line(self) -> str:
        line = self._stdout.readline()
        assert line.endswith("\n"), "the process ended early"
        return line.rstrip("\n")

    def read_until(self, last: str) -> list[str]:
        """Its lines before the line ``last``."""
        return list(iter(self.read_line, last))

    def read_rest(self) -> list[str]:
        """Its remaining lines until it ends; a line that was cut off by the end does not count."""
        return [line.rstrip("\n") for line in self._stdout if line.endswith("\n")]

    def go(self) -> None:
        self._stdin.write("go\n")
        self._stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        self._stdin.close()
        self._stdout.close()


@contextmanager
def other_process(*arguments: object) -> Iterator[OtherProcess]:
    process = OtherProcess(*arguments)
    try:
        yield process
    finally:
        process.close()


async def until_unsound(journal: Journal) -> str:
    """Wait until the journal has noticed that something is wrong; what it says."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (problem := journal.problem) is None:  # noqa: ASYNC110 - tests need no more than the property
            await asyncio.sleep(0.01)
    return problem


async def until_sound(journal: Journal) -> None:
    """Wait until the journal has noticed that all is well again."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while journal.problem is not None:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
