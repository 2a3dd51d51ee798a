"""``python -m bench.faults``: see ``--help``. Loopback only; ends by itself, and with it all that it has started."""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from secrets import token_urlsafe

from bench.faults.clock import LIBRARY, Clock
from bench.faults.database import DATABASE_FAULTS, replicas
from bench.faults.kinds import FAULTS, Fault, Scene, chosen
from bench.faults.ledger import Ledger
from bench.faults.load import Load
from bench.faults.plan import Happened, carry_out, make_plan
from bench.faults.server import PROJECT, Server, ServerError, python_of
from bench.faults.trainer import Faults, FaultyTrainer
from osmosis_ai.rollout.journal.place import journal_at

DELIVERY_TIMEOUT_SECONDS = 90.0
"""After the load and its faults, for what is still on its way."""
POLL_SECONDS = 0.05
REFUSED_SHARE = 0.05
"""Of all calls of the trainer, answered 503 all the time."""
DROPPED_SHARE = 0.02
"""Of the results, kept but not acknowledged."""
MAX_SHOWN_IDS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; 0 only if nothing was lost, contradicted, started twice or left unaccepted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.faults = _faults(options.faults, DATABASE_FAULTS if options.replicas else FAULTS)
    except argparse.ArgumentTypeError as wrong:
        parser.error(f"argument --faults: {wrong}")
    with tempfile.TemporaryDirectory(prefix="osmosis-faults-") as folder:
        try:
            report, good = asyncio.run(_bench(options, Path(folder)))
        except* ServerError as errors:
            (error, *_) = _flat(errors)
            report, good = f"Error: {error}\n", False
        if not good and options.keep is not None:
            shutil.copytree(folder, options.keep)
    sys.stdout.write(report)
    return 0 if good else 1


def _flat(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _flat(each)
    else:
        yield error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description="Is a rollout ever lost?")
    add = parser.add_argument
    add("--rollouts", type=int, default=400, metavar="N", help="at least, and more until all is over [%(default)s]")
    add("--rate", type=float, default=20.0, metavar="N", help="inits a second [%(default)s]")
    add("--seed", type=int, default=1, help="of what happens when [%(default)s]")
    add("--workers", type=int, default=1, metavar="N", help="server processes on one journal [%(default)s]")
    add("--replicas", type=int, metavar="N", help="in place of workers: on one PostgreSQL, each behind a proxy")
    names = ",".join(FAULTS | DATABASE_FAULTS)
    add("--faults", default="all", metavar="LIST", help=f"all that fit, or of {names} [%(default)s]")
    add("--keep", type=Path, metavar="DIR", help="after a failure, keep the journal and the servers' logs here")
    add("--checkout", type=Path, default=PROJECT, metavar="DIR", help="serve with the SDK of another one")
    return parser


def _faults(names: str, among: Mapping[str, Fault]) -> list[Fault]:
    try:
        faults = chosen(filter(None, names.split(",")), among)
    except KeyError as error:
        raise argparse.ArgumentTypeError(f"there is no fault {error}: it is one of {', '.join(among)}") from None
    if LIBRARY is None and any(fault.name == "clock" for fault in faults):
        if names != "all":
            raise argparse.ArgumentTypeError("clock needs libfaketime (Debian: faketime)")
        faults = [fault for fault in faults if fault.name != "clock"]
    return faults


async def _bench(options: argparse.Namespace, folder: Path) -> tuple[str, bool]:
    random = Random(options.seed)  # noqa: S311 - decides what fails when, guards nothing
    ledger, api_key, journal = Ledger(), token_urlsafe(), folder / "home" / "journal.db"
    count = options.replicas or options.workers
    plan, over = make_plan(random, options.faults, count), asyncio.Event()
    clock = Clock(folder / "clock")
    environment = clock.environment if any(planned.fault.name == "clock" for planned in plan) else {}
    async with AsyncExitStack() as stack:
        on_database = stack.enter_context(replicas(count)) if options.replicas else None
        trainer = await stack.enter_async_context(FaultyTrainer(ledger, Faults(REFUSED_SHARE, DROPPED_SHARE), random))
        servers = [
            Server(
                journal if on_database is None else on_database.urls[number],
                folder / f"server-{number}.log",
                api_key,
                ended=ledger.ended,
                environment=environment,
                python=python_of(options.checkout),
            )
            for number in range(count)
        ]
        for server in servers:
            await stack.enter_async_context(server)
        urls = [server.url for server in servers]
        load = await stack.enter_async_context(
            Load(urls, trainer.url, api_key, ledger, random, f"rollout-{options.seed}")
        )
        scene = Scene(servers[0], servers, journal, trainer, load, ledger, clock, on_database)
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(options.rollouts, options.rate, over))
            faults = await carry_out(plan, scene)
            over.set()
        await _wait_for_results(ledger)
        for server in servers:
            await server.stop()
        exit_codes = [code for server in servers for code in server.exit_codes]
        async with journal_at(str(journal) if on_database is None else on_database.url) as closed:
            states = await closed.counts()
    in_journal = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    return _report(ledger, faults, exit_codes, in_journal)


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
        "failed for no reason": ledger.failed,
        "interrupted while alive": ledger.interrupted_alive,
        "chats after a result while alive": ledger.chats_after_result_alive,
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
        rows.append((f"after {fault.name}", f"over in {fault.seconds:.2f} s, all results in {delivered:.2f} s"))
    width = max(len(name) for name, _ in rows)
    good = not any(must_be_empty.values()) and not any(exit_codes)
    return "".join(f"{name:<{width}}  {value}\n" for name, value in rows), good


def _shown(ids: set[str]) -> str:
    few = ", ".join(sorted(ids)[:MAX_SHOWN_IDS])
    return f"{len(ids)} ({few}{', ...' if len(ids) > MAX_SHOWN_IDS else ''})" if ids else "0"


if __name__ == "__main__":
    sys.exit(main())
