"""``python -m bench.trainer``: what the trainer's side costs beside the server's, on the same rollouts.

The example agent under ``osmosis serve`` with a journal, the scripted policy behind the trainer library, the rows of
``test_data.jsonl`` over and over. A second part holds rollouts in flight, whose server never answers, for their memory.
Loopback only; ends by itself.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.accounting import usage
from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.run.data.dataset import dataset_row_to_request
from osmosis_ai.rollout.run.policies import ArithmeticPolicy
from osmosis_ai.rollout.trainer import (
    ChatCall,
    RolloutOutcome,
    ServerKeeper,
    Trainer,
    TrainerLimits,
    completer_of,
)

ROWS = Path(__file__).parents[1] / "test_data.jsonl"
WARM_UP = 200
ACCEPTED = b'{"rollout_id":"","tools":[]}'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; 0 only if every rollout was right."""
    parser = argparse.ArgumentParser(prog="python -m bench.trainer", description=__doc__)
    parser.add_argument("--rollouts", type=int, default=2000, metavar="N", help="a round [%(default)s]")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="[%(default)s]")
    parser.add_argument("--concurrency", type=int, default=256, metavar="N", help="in flight [%(default)s]")
    parser.add_argument("--held", type=int, default=10_000, metavar="N", help="in flight for memory [%(default)s]")
    options = parser.parse_args(arguments)
    held_bytes = asyncio.run(_hold(options.held))
    with tempfile.TemporaryDirectory(prefix="osmosis-trainer-") as folder:
        rounds, right = asyncio.run(_cost(options, Path(folder) / "journal.db"))
    for name, values in (
        ("trainer, CPU ms a rollout", [trainer for trainer, _ in rounds]),
        ("server, CPU ms a rollout", [server for _, server in rounds]),
        ("trainer over server", [trainer / server for trainer, server in rounds]),
    ):
        sys.stdout.write(f"{name:<26} {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})\n")
    total = options.rollouts * options.rounds
    sys.stdout.write(f"{'right':<26} {right} of {total}\n")
    sys.stdout.write(f"{f'{options.held} in flight':<26} {held_bytes / 1e6:.0f} MB\n")
    return 0 if right == total else 1


def _requests(name: str, count: int) -> Iterator[RolloutRequest]:
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    for number in range(count):
        row = rows[number % len(rows)]
        yield dataset_row_to_request(row, number, completion_params={"temperature": 1.0}, rollout_id_prefix=name)


async def _cost(options: argparse.Namespace, journal: Path) -> tuple[list[tuple[float, float]], int]:
    """CPU milliseconds a rollout of trainer and server, round by round, and how many rewards were 1."""
    keeper = ServerKeeper(("-m", "server:agent_loop"), journal=journal)
    limits = TrainerLimits(concurrency=options.concurrency)
    rounds, right = [], 0
    async with (
        Trainer(
            completer_of(ArithmeticPolicy), server_url=keeper.url, server_api_key=keeper.api_key, limits=limits
        ) as trainer,
        keeper.serving(trainer),
    ):
        await trainer.run(_requests("warm-up", WARM_UP), lambda outcome: None)
        server = keeper.pid or 0
        for number in range(options.rounds):
            outcomes: list[RolloutOutcome] = []
            before = usage(server).cpu_seconds, sum(os.times()[:2])
            await trainer.run(_requests(f"round-{number}", options.rollouts), outcomes.append)
            after = usage(server).cpu_seconds, sum(os.times()[:2])
            server_seconds, own_seconds = (later - earlier for later, earlier in zip(after, before, strict=True))
            rounds.append((own_seconds / options.rollouts * 1000, server_seconds / options.rollouts * 1000))
            right += sum(outcome.reward == 1.0 for outcome in outcomes)
    return rounds, right


async def _hold(count: int) -> int:
    """The memory of this process with ``count`` rollouts in flight."""
    accepted, all_accepted = 0, asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                await reader.readexactly(length)
                status = b"202 Accepted" if head.startswith(b"POST /v1/rollout/init") else b"404 Not Found"
                writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(ACCEPTED), ACCEPTED))
                accepted += 1
                if accepted == count:
                    all_accepted.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def never(call: ChatCall) -> CompletionsResult:
        raise AssertionError(call)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    limits = TrainerLimits(concurrency=count)
    async with server, Trainer(never, server_url=url, limits=limits) as trainer:
        tasks = [asyncio.create_task(trainer.run_one(request)) for request in _requests("held", count)]
        await all_accepted.wait()
        held = usage(os.getpid()).rss_bytes
        await trainer.cancel(everything=True)
        await asyncio.gather(*tasks)
    return held


if __name__ == "__main__":
    sys.exit(main())
