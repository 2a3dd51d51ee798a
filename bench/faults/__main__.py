"""``python -m bench.faults``: see ``--help``. Loopback only; ends by itself, and with it all that it has started."""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from secrets import token_urlsafe

from bench.faults.ledger import Ledger
from bench.faults.load import Load
from bench.faults.plan import Happened, carry_out, make_plan
from bench.faults.server import Server, ServerError
from bench.faults.trainer import Faults, FaultyTrainer
from osmosis_ai.rollout.journal import SqliteJournal

DELIVERY_TIMEOUT_SECONDS = 60.0
"""After the load and its faults, for what is still on its way."""
POLL_SECONDS = 0.05
MAX_SHOWN_IDS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; 0 only if nothing was lost, contradicted, started twice or left unaccepted."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="osmosis-faults-") as folder:
        try:
            report, good = asyncio.run(_bench(options, Path(folder)))
        except* ServerError as errors:
            report, good = f"Error: {errors.exceptions[0]}\n", False
        if not good and options.keep is not None:
            Path(folder).rename(options.keep)
            Path(folder).mkdir()
    sys.stdout.write(report)
    return 0 if good else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description="Is a rollout ever lost?")
    add = parser.add_argument
    add("--rollouts", type=int, default=400, metavar="N", help="inits to send [%(default)s]")
    add("--rate", type=float, default=40.0, metavar="N", help="inits a second [%(default)s]")
    add("--seed", type=int, default=1, help="of what happens when [%(default)s]")
    add("--workers", type=int, default=1, metavar="N", help="server processes on one journal [%(default)s]")
    add("--kills", type=int, default=2, metavar="N", help="times a server gets kill -9 [%(default)s]")
    add("--terms", type=int, default=2, metavar="N", help="times a server gets SIGTERM [%(default)s]")
    add("--outage", type=float, default=8.0, metavar="SECONDS", help="the trainer is away for [%(default)s]")
    add("--refuse", type=float, default=0.05, metavar="SHARE", help="trainer calls answered 503 [%(default)s]")
    add("--drop", type=float, default=0.02, metavar="SHARE", help="results kept but not acknowledged [%(default)s]")
    add("--keep", type=Path, metavar="DIR", help="after a failure, keep the journal and the servers' logs here")
    return parser


async def _bench(options: argparse.Namespace, folder: Path) -> tuple[str, bool]:
    random = Random(options.seed)  # noqa: S311 - decides what fails when, guards nothing
    ledger, api_key, journal = Ledger(), token_urlsafe(), folder / "journal.db"
    plan = make_plan(
        random, options.rollouts / options.rate, options.kills, options.terms, int(options.outage > 0), options.workers
    )
    async with AsyncExitStack() as stack:
        trainer = await stack.enter_async_context(FaultyTrainer(ledger, Faults(options.refuse, options.drop), random))
        servers = [Server(journal, folder / f"server-{number}.log", api_key) for number in range(options.workers)]
        for server in servers:
            await stack.enter_async_context(server)
        load = Load([server.url for server in servers], trainer.url, api_key, ledger, random, f"rollout-{options.seed}")
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(options.rollouts, options.rate))
            faults = group.create_task(carry_out(plan, servers, trainer, options.outage))
        await _wait_for_results(ledger)
        for server in servers:
            await server.stop()
        exit_codes = [code for server in servers for code in server.exit_codes]
    async with SqliteJournal(journal) as closed:
        states = await closed.counts()
    in_journal = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    return _report(ledger, faults.result(), exit_codes, in_journal)


async def _wait_for_results(ledger: Ledger) -> None:
    try:
        async with asyncio.timeout(DELIVERY_TIMEOUT_SECONDS):
            while ledger.lost:  # noqa: ASYNC110 - a dozen looks a second cost nothing
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        return  # the report tells which


def _report(ledger: Ledger, faults: list[Happened], exit_codes: list[int], in_journal: str) -> tuple[str, bool]:
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(Counter(ledger.outcomes.values()).items()))
    must_be_empty = {
        "lost": ledger.lost,
        "contradicting": ledger.contradicting,
        "started twice": ledger.started_twice,
        "never accepted": ledger.never_accepted,
        "answered differently": ledger.answered_differently,
        "rewarded failures": ledger.rewarded_failures,
    }
    rows = [
        ("accepted", str(len(ledger.promised_at))),
        ("delivered", f"{len(ledger.delivered_at)} ({outcomes})"),
        *((name, _shown(ids)) for name, ids in must_be_empty.items()),
        ("redelivered", f"{ledger.redelivered} identical repeats"),
        ("chats after a result", _shown(ledger.chats_after_result)),
        ("exit codes", f"{' '.join(map(str, exit_codes))} after SIGTERM"),
        ("journal at the end", in_journal),
    ]
    for fault in sorted(faults, key=lambda fault: fault.at):
        delivered = ledger.seconds_to_deliver(fault.at)
        rows.append(
            (
                f"after {fault.kind}",
                f"serving again in {fault.seconds_until_serving:.2f} s, all results in {delivered:.2f} s",
            )
        )
    width = max(len(name) for name, _ in rows)
    good = not any(must_be_empty.values()) and not any(exit_codes)
    return "".join(f"{name:<{width}}  {value}\n" for name, value in rows), good


def _shown(ids: set[str]) -> str:
    few = ", ".join(sorted(ids)[:MAX_SHOWN_IDS])
    return f"{len(ids)} ({few}{', ...' if len(ids) > MAX_SHOWN_IDS else ''})" if ids else "0"


if __name__ == "__main__":
    sys.exit(main())
