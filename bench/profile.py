"""``python -m bench.profile``: where a server's time goes under load, function by function and thread by thread.

The profiler makes calls of Python functions dearer than they are, so read it for proportions and take the milliseconds
from ``python -m bench``.
"""

import argparse
import asyncio
import io
import pstats
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import uvloop

from bench.contenders.roster import PROJECT, Contender
from bench.load.generator import Generator
from bench.serving import API_KEY, Server, ServerError

WARM_UP_ROLLOUTS = 300
WRITE_TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.05
_LIBRARY_FOLDER = re.compile(r"\S*/(site-packages|lib/python[0-9.]+)/")


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile a contender; 0 only if no rollout erred."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="osmosis-profile-") as folder:
        try:
            return uvloop.run(_profile(options, Path(folder)))
        except ServerError as error:
            sys.stderr.write(f"Error: {error}\n")
            return 1


async def _profile(options: argparse.Namespace, folder: Path) -> int:
    file = folder / "server.prof"
    contender = Contender[options.contender]
    async with (
        Server(
            contender, folder, concurrency=options.concurrency, wrapper=("-m", "bench.profiled", str(file))
        ) as server,
        Generator(server.port, API_KEY, turns=options.turns, reply_bytes=options.reply_bytes) as generator,
    ):
        errors = (await generator.run(WARM_UP_ROLLOUTS, options.concurrency)).errors
        threads = server.cpu_seconds_by_thread()
        plain = await generator.run(options.rollouts, options.concurrency)
        spent = {
            thread: seconds - threads.get(thread, 0.0) for thread, seconds in server.cpu_seconds_by_thread().items()
        }
        server.send_signal(signal.SIGUSR1)
        profiled = await generator.run(options.rollouts, options.concurrency)
        server.send_signal(signal.SIGUSR2)
        async with asyncio.timeout(WRITE_TIMEOUT_SECONDS):
            while not file.exists():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(POLL_SECONDS)
    errors += plain.errors + profiled.errors
    sys.stdout.write(f"{contender}, {options.concurrency} in flight, {options.turns} calls to the model\n\n")
    sys.stdout.write("CPU ms a rollout by thread, without the profiler:\n")
    for thread, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        if seconds:
            sys.stdout.write(f"  {thread:<20} {seconds * 1000 / max(1, plain.completed):.3f}\n")
    sys.stdout.write(f"\nMain thread, {profiled.completed} rollouts under the profiler:\n{_top(file, options)}")
    for problem, times in errors.items():
        sys.stdout.write(f"ERROR: {times} times {problem}\n")
    if options.save is not None:
        options.save.write_bytes(file.read_bytes())
    return 1 if errors else 0


def _top(file: Path, options: argparse.Namespace) -> str:
    text = io.StringIO()
    pstats.Stats(str(file), stream=text).sort_stats(options.sort).print_stats(options.top)
    return _LIBRARY_FOLDER.sub("", text.getvalue()).replace(f"{PROJECT}/", "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description="Where does a server's time go?")
    add = parser.add_argument
    add("--contender", choices=[one.name for one in Contender], default=Contender.OURS.name, help="[%(default)s]")
    add("--concurrency", type=int, default=64, metavar="N", help="rollouts in flight [%(default)s]")
    add("--turns", type=int, default=2, metavar="N", help="calls to the model in a rollout [%(default)s]")
    add("--reply-bytes", type=int, metavar="N", help="of text in a reply of the model [200]")
    add("--rollouts", type=int, default=3000, metavar="N", help="[%(default)s]")
    add("--sort", choices=["tottime", "cumulative", "ncalls"], default="tottime", help="[%(default)s]")
    add("--top", type=int, default=40, metavar="N", help="functions to show [%(default)s]")
    add("--save", type=Path, metavar="FILE", help="keep the profile, for pstats and its viewers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
