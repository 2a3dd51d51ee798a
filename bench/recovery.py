"""``python -m bench.recovery``: how soon a server serves on a full journal, and how fast it delivers what was left.

The journal holds settled records, finished results without an acknowledgement, and rollouts that were cut off. Loopback
only; ends by itself, and with it the server that it has started.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from random import Random
from secrets import token_urlsafe

from bench.faults.database import replicas
from bench.faults.ledger import Ledger
from bench.faults.server import Server
from bench.faults.trainer import Faults, FaultyTrainer
from osmosis_ai.rollout.journal import Acceptance, RolloutState
from osmosis_ai.rollout.journal.place import journal_at

DELIVERY_TIMEOUT_SECONDS = 120.0
WRITTEN_AT_ONCE = 500
POLL_SECONDS = 0.005
MESSAGE = {"role": "user", "content": "x" * 4000}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; 0 only if everything that was left was delivered."""
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description=__doc__)
    parser.add_argument("--records", type=int, default=10_000, metavar="N", help="settled [%(default)s]")
    parser.add_argument("--results", type=int, default=1_000, metavar="N", help="not acknowledged [%(default)s]")
    parser.add_argument("--cut-off", type=int, default=1_000, metavar="N", help="without a result [%(default)s]")
    parser.add_argument("--restarts", type=int, default=5, metavar="N", help="times to start the server [%(default)s]")
    parser.add_argument("--postgres", action="store_true", help="the journal in a database of the bench's own")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="osmosis-recovery-") as folder:
        report, good = asyncio.run(_bench(options, Path(folder)))
    sys.stdout.write(report)
    return 0 if good else 1


async def _bench(options: argparse.Namespace, folder: Path) -> tuple[str, bool]:
    with replicas(1) if options.postgres else nullcontext() as on_database:
        return await _measure(options, folder, str(folder / "journal.db") if on_database is None else on_database.url)


async def _measure(options: argparse.Namespace, folder: Path, journal: str) -> tuple[str, bool]:
    ledger, left = Ledger(), options.results + options.cut_off
    starts = []
    async with FaultyTrainer(ledger, Faults(), Random(1)) as trainer:  # noqa: S311 - guards nothing
        await _fill(journal, trainer.url, options.records, options.results, options.cut_off)
        server = Server(journal, folder / "server.log", token_urlsafe())
        try:
            async with trainer.away():  # so that all is still left at the next start
                for _ in range(options.restarts):
                    starts.append(await server.start())
                    await server.stop()
            await server.start()
            await _wait_for(ledger, left)
            await server.stop()
        finally:
            await server.kill()
    times = sorted(ledger.delivered_at.values())
    delivering_seconds = times[-1] - times[0] if len(times) > 1 else 0.0
    rows = [
        ("records in the journal", str(options.records + left)),
        ("serving after", f"{statistics.median(starts):.2f} s, the median of {len(starts)} starts with all of it left"),
        ("left behind", f"{left}, of which delivered {len(times)}, contradicting {len(ledger.contradicting)}"),
        ("delivered a second", f"{len(times) / delivering_seconds:.0f}" if delivering_seconds else "-"),
    ]
    width = max(len(name) for name, _ in rows)
    return "".join(f"{name:<{width}}  {value}\n" for name, value in rows), len(times) == left


async def _fill(place: str, trainer_url: str, settled: int, finished: int, cut_off: int) -> None:
    async with journal_at(place) as journal:

        async def write(number: int) -> None:
            rollout_id, key = f"rollout-{number}", f"id:rollout-{number}"
            request = json.dumps({"messages": [MESSAGE]}).encode()
            await journal.accept(Acceptance(key, rollout_id, "", trainer_url, "callback-key", b"{}", request))
            if number < settled + finished:
                await journal.finish(key, _result(rollout_id))
            if number < settled:
                await journal.settle(key, RolloutState.DELIVERED, attempts=1)

        total = settled + finished + cut_off
        for start in range(0, total, WRITTEN_AT_ONCE):
            await asyncio.gather(*map(write, range(start, min(start + WRITTEN_AT_ONCE, total))))


def _result(rollout_id: str) -> bytes:
    result = {
        "rollout_id": rollout_id,
        "status": "COMPLETED",
        "final_messages": [MESSAGE],
        "finish_reason": "stop",
        "reward": 1.0,
        "extra_fields": {"outcome": "success"},
    }
    return json.dumps(result).encode()


async def _wait_for(ledger: Ledger, amount: int) -> None:
    deadline = time.monotonic() + DELIVERY_TIMEOUT_SECONDS
    while len(ledger.delivered_at) < amount and time.monotonic() < deadline:  # noqa: ASYNC110 - as cheap as an event
        await asyncio.sleep(POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
