"""A process that uses a journal, for tests: ``python -m support.journal_process COMMAND PATH ARGUMENT``.

It prints what it has done, a line each.
"""

import asyncio
import os
import resource
import sys
from itertools import count

from osmosis_ai.rollout.journal import JournalError, RolloutState, SqliteJournal
from support.journal import an_acceptance, claim_all


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201 - how it talks to the test


async def wait_for_go() -> None:
    await asyncio.to_thread(sys.stdin.readline)


async def work(path: str, prefix: str) -> None:
    """Run rollouts side by side until killed; every line was acknowledged by the journal."""
    numbers = count()
    async with SqliteJournal(path) as journal:

        async def run_rollouts() -> None:
            for number in numbers:
                key = f"{prefix}{number}"
                await journal.accept(an_acceptance(key))
                say("accepted", key)
                if number % 3:
                    await journal.finish(key, f"result of {key}".encode())
                    say("finished", key)
                if number % 3 == 2:
                    await journal.settle(key, RolloutState.DELIVERED, attempts=1)
                    say("delivered", key)

        await asyncio.gather(*(run_rollouts() for _ in range(16)))


async def accept(path: str, amount: str) -> None:
    """Accept keys that others accept too; print those won."""
    async with SqliteJournal(path) as journal:
        say("ready")
        await wait_for_go()
        keys = [f"key-{number}" for number in range(int(amount))]
        standing = await asyncio.gather(*(journal.accept(an_acceptance(key)) for key in keys))
        for key, record in zip(keys, standing, strict=True):
            if record is None:
                say(key)


async def claim(path: str, page: str) -> None:
    """Claim what others claim too, print what was got, and live until told to go."""
    async with SqliteJournal(path) as journal:
        say("ready")
        await wait_for_go()
        for record in await claim_all(journal, page=int(page)):
            say(record.key)
        say("done")
        await wait_for_go()


async def hold(path: str, amount: str) -> None:
    """Accept, and live until told to go or killed; say what is wrong with the journal meanwhile."""
    journal = SqliteJournal(path)
    journal.on_problem = say
    async with journal:
        for number in range(int(amount)):
            await journal.accept(an_acceptance(f"key-{number}"))
        say("ready")
        await wait_for_go()


async def leave_child(path: str, kind: str) -> None:
    """Accept, and leave a child process behind that outlives this one."""
    journal = SqliteJournal(path)
    await journal.open()
    await journal.accept(an_acceptance("key-0"))
    if kind == "forked":
        if os.fork() == 0:
            say("ready")
            sys.stdin.readline()
            os._exit(0)
    else:
        await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", close_fds=False)
        say("ready")
    await asyncio.Event().wait()


async def fork(path: str, _: str) -> None:
    """Use an open journal in a forked child; print what that gives."""
    async with SqliteJournal(path) as journal:
        if (child := os.fork()) == 0:
            try:
                asyncio.run(journal.accept(an_acceptance("child")))
            except JournalError as error:
                say(error)
            finally:
                asyncio.run(journal.close())
                os._exit(0)
        await asyncio.to_thread(os.waitpid, child, 0)
        say(await journal.accept(an_acceptance("parent")))


async def fill(path: str, _: str) -> None:
    """Run out of room for a while."""
    async with SqliteJournal(path) as journal:
        await journal.accept(an_acceptance("before"))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
        try:
            await journal.accept(an_acceptance("during", request=bytes(1_000_000)))
        except JournalError as error:
            say(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await journal.accept(an_acceptance("after", request=bytes(1_000_000)))
        for record in await journal.records():
            say(record.key)


async def settle(path: str, state: str) -> None:
    """Bring a record under ``key`` into a state."""
    async with SqliteJournal(path) as journal:
        await journal.accept(an_acceptance("later"))
        await journal.accept(an_acceptance("key"))
        await journal.finish("key", b"result")
        if state != RolloutState.FINISHED:
            await journal.settle("key", RolloutState(state), attempts=1)


async def repeat(path: str, _: str) -> None:
    """Accept that key again; say what else happened to it."""
    async with SqliteJournal(path) as journal:
        standing = await journal.accept(an_acceptance("key"))
        say("accepted anew" if standing is None else "taken")
        say("pruned", await journal.prune())
        if standing is not None:
            say("served", "less than a minute" if journal.served_since(standing.accepted_at) < 60 else "too long")


async def finish_later(path: str, _: str) -> None:
    """Finish what another process accepted; say whether its times are in order."""
    async with SqliteJournal(path) as journal:
        await journal.finish("later", b"result")
        await journal.settle("later", RolloutState.DELIVERED, attempts=1)
        record = await journal.get("later")
        times = [] if record is None else [record.accepted_at, record.finished_at or 0, record.settled_at or 0]
        say("in order" if times == sorted(times) else times)


COMMANDS = {
    "settle": settle,
    "repeat": repeat,
    "finish-later": finish_later,
    "work": work,
    "accept": accept,
    "claim": claim,
    "hold": hold,
    "leave-child": leave_child,
    "fork": fork,
    "fill": fill,
}

if __name__ == "__main__":
    _, command, *arguments = sys.argv
    asyncio.run(COMMANDS[command](*arguments))
