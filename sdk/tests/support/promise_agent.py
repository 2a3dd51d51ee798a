"""The agent that the promise is tested with: ``metadata.do`` says how it behaves once it has had its first reply.

From then on it is in the server's log: ``ROLLOUT_ID does WHAT``.
"""

import asyncio
import ctypes
import hashlib
import logging
import multiprocessing
import os
import queue
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext
from osmosis_ai.rollout.core.reward_functions import osmosis_reward
from osmosis_ai.rollout.core.schemas import MessageDict, OpenAIFunctionToolSchema, RolloutRequest

ASLEEP_SECONDS = 600.0
TOLD_WITHIN_SECONDS = 30.0
SLEEPING_TOOLS = 20

_shared: list[asyncio.Task[None]] = []
_asked: list[tuple[str, asyncio.Future[None]]] = []

End = Callable[[RolloutContext, list[MessageDict]], Awaitable[Any]]


@osmosis_reward
def broken_reward(solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> float:
    """A reward function with a mistake in it."""
    return 1.0 / len(ground_truth)


async def complete(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    return ctx.complete(messages, reward=1.0)


async def chat_again(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    messages.append({"role": "user", "content": "And then?"})
    reply = await ctx.chat(messages)
    return ctx.complete([*messages, reply.message], reward=1.0)


async def hang(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    await asyncio.Event().wait()


async def keep_calling(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    while True:
        await ctx.chat(messages)


async def swallow_cancellation(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


async def sleep_in_threads(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    await asyncio.gather(*(asyncio.to_thread(time.sleep, ASLEEP_SECONDS) for _ in range(SLEEPING_TOOLS)))


async def block(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    time.sleep(ASLEEP_SECONDS)  # noqa: ASYNC251 - the very mistake, as below


class _Told(logging.Handler):
    """Tells when the watchdog has told of a block: in the log, and to all who watch."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: queue.Queue[threading.Thread] = queue.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        if "Event loop blocked" in record.getMessage():
            self.threads.put(threading.current_thread())


_told = _Told()
logging.getLogger("osmosis_ai.rollout.server.watchdog").addHandler(_told)


async def block_until_told(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    _told.threads.get(timeout=TOLD_WITHIN_SECONDS).join()
    until = time.monotonic() + TOLD_WITHIN_SECONDS
    while not ctx.loop_blocks and time.monotonic() < until:  # whose it is may be found out later, on a busy machine
        time.sleep(0.01)  # noqa: ASYNC251 - it blocks
    return ctx.complete(messages, reward=1.0)


async def block_in_a_child(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    await asyncio.gather(block(ctx, messages), asyncio.sleep(ASLEEP_SECONDS))


async def block_in_a_library(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        server.accept()[0].recv(1)


async def block_again_and_again(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    while True:
        with suppress(BaseException):
            time.sleep(ASLEEP_SECONDS)  # noqa: ASYNC251 - as above


async def spin(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    while True:
        pass


async def backtrack(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    """Keeps the interpreter to itself, and asks for signals now and then."""
    re.match(r"(a+)+$", "a" * 64 + "b")


async def backtrack_when_cancelled(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    try:
        await asyncio.Event().wait()
    finally:
        await backtrack(ctx, messages)


async def hold_the_interpreter(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    """Keeps it, and never asks for signals: waits for a lock that it has, and all other threads wait for it."""
    library, lock = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(lock)
    library.pthread_mutex_lock(lock)


async def block_in_c(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    """Gives the interpreter away, and never asks for signals."""
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 1_000_000_000)


async def ask_shared_worker(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    """All rollouts share a task that the first one starts; for any but that one it blocks."""
    if not _shared:
        _shared.append(asyncio.create_task(_work()))
    done = asyncio.get_running_loop().create_future()
    _asked.append((ctx.request.rollout_id, done))
    await done
    return ctx.complete(messages, reward=1.0)


async def _work() -> None:
    while True:
        await asyncio.sleep(0.01)
        while _asked:
            name, done = _asked.pop()
            if name != "first":
                _told.threads.get(timeout=TOLD_WITHIN_SECONDS).join()
            done.set_result(None)


async def fork_and_terminate(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(ASLEEP_SECONDS,))
    child.start()
    child.terminate()
    await asyncio.sleep(1.0)  # long enough for a signal that is taken for ours
    child.kill()
    return ctx.complete(messages, reward=1.0)


async def give_nan_reward(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    return ctx.complete(messages, reward=float("nan"))


async def fail_in_reward(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    return ctx.complete(messages, reward=broken_reward("4", ""))


async def fail(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    raise KeyError("a mistake in the agent")


async def exit_process(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    raise SystemExit(3)


async def give_too_much(ctx: RolloutContext, messages: list[MessageDict]) -> Any:
    return ctx.complete([*messages, {"role": "assistant", "content": "x" * 1_000_000}], reward=1.0)


ENDS: dict[str, End] = {
    end.__name__: end
    for end in (
        complete,
        chat_again,
        hang,
        keep_calling,
        swallow_cancellation,
        sleep_in_threads,
        block,
        block_until_told,
        block_in_a_child,
        block_in_a_library,
        block_again_and_again,
        spin,
        backtrack,
        backtrack_when_cancelled,
        block_in_c,
        hold_the_interpreter,
        ask_shared_worker,
        fork_and_terminate,
        give_nan_reward,
        fail_in_reward,
        fail,
        exit_process,
        give_too_much,
    )
}


class PromiseAgent(RolloutAgentLoop):
    """One chat call, and then the end that ``metadata.do`` names (default ``complete``)."""

    name = "promise"

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return []

    async def run(self, ctx: RolloutContext) -> Any:
        messages = list(ctx.request.messages)
        reply = await ctx.chat(messages)
        messages.append(reply.message)
        do = ctx.request.metadata.get("do", "complete")
        with suppress(OSError):  # a full disk has no room for logs either
            os.write(2, f"{ctx.request.rollout_id} does {do}\n".encode())
        return await ENDS[do](ctx, messages)


agent_loop = PromiseAgent()
