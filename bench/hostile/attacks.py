"""What hostile callers and trainers send: ``python -m bench.hostile.attacks NAME``, as ``bench.hostile`` starts it.

A caller's attack is what a number of connections send again and again. A trainer's is how it answers the calls of
rollouts, which the attack starts itself. Prints a JSON object: how often what came of it.
"""

import argparse
import asyncio
import functools
import gzip
import itertools
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
CHAT_PATH = "/v1/chat/completions"
PIECE = b"x" * 65_536
SINGLE_BYTES = b"1\r\n \r\n" * 10_000
"""In chunks."""
GIGABYTE = 1_000_000_000
ROLLOUTS_AT_ONCE = 8
BOMB_BYTES = 200_000_000
"""Unpacked; packed it is 200 kB."""
BACKLOG = 1024

Pieces = AsyncIterator[bytes]


@dataclass(frozen=True)
class Target:
    """The server under attack, and where its trainer is to be."""

    port: int
    key: str
    trainer_port: int


async def _endless_lines() -> Pieces:
    yield b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    for number in itertools.count():
        yield b"".join(b"X-%d-%d: %s\r\n" % (number, line, b"x" * 500) for line in range(100))


async def _endless_line() -> Pieces:
    yield b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "
    while True:
        yield PIECE


async def _many_headers() -> Pieces:
    yield b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"".join(b"X-%d: x\r\n" % n for n in range(100_000))
    yield b"\r\n"


async def _half_a_head() -> Pieces:
    yield b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def _body(key: bool, length: str, pieces: Callable[[], Pieces]) -> "Callable[[Target], Pieces]":
    async def send(target: Target) -> Pieces:
        authorization = f"Authorization: Bearer {target.key}\r\n" if key else ""
        head = f"POST /v1/rollout/init HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}Content-Type: application/json\r\n"
        yield f"{head}{length}\r\n\r\n".encode()
        async for piece in pieces():
            yield piece

    return send


async def _drops() -> Pieces:
    while True:
        yield b" " * 1000
        await asyncio.sleep(1)


async def _flood() -> Pieces:
    while True:
        yield PIECE


async def _chunks() -> Pieces:
    while True:
        yield b"%x\r\n%s\r\n" % (len(PIECE), PIECE)


async def _single_bytes() -> Pieces:
    while True:
        yield SINGLE_BYTES


def _head(pieces: Callable[[], Pieces]) -> "Callable[[Target], Pieces]":
    return lambda target: pieces()


CALLERS: dict[str, tuple[int, Callable[[Target], Pieces]]] = {
    "endless header lines": (8, _head(_endless_lines)),
    "an endless header": (8, _head(_endless_line)),
    "100,000 headers": (4, _head(_many_headers)),
    "half-sent heads": (1000, _head(_half_a_head)),
    "slow bodies": (300, _body(False, "Content-Length: 30000000", _drops)),
    "slow bodies, with the key": (300, _body(True, "Content-Length: 30000000", _drops)),
    "oversize bodies": (8, _body(False, f"Content-Length: {GIGABYTE}", _flood)),
    "oversize bodies, with the key": (8, _body(True, f"Content-Length: {GIGABYTE}", _flood)),
    "endless chunks, with the key": (8, _body(True, "Transfer-Encoding: chunked", _chunks)),
    "single bytes": (32, _body(False, "Transfer-Encoding: chunked", _single_bytes)),
    "single bytes, with the key": (32, _body(True, "Transfer-Encoding: chunked", _single_bytes)),
}
"""How many connections send what."""


async def _call(target: Target, pieces: Pieces, seen: Counter[str]) -> None:
    """Send until the server answers or closes, then note how it did."""
    try:
        reader, writer = await asyncio.open_connection(LOOPBACK, target.port)
    except OSError:
        seen["refused"] += 1
        await asyncio.sleep(0.1)
        return

    async def send() -> None:
        with suppress(OSError):
            async for piece in pieces:
                writer.write(piece)
                await writer.drain()

    sending = asyncio.create_task(send())
    try:
        line = await reader.readline()
        seen[line[9:12].decode("latin-1") or "closed"] += 1
    except (OSError, ValueError):
        seen["closed"] += 1
    except asyncio.CancelledError:
        seen["held to the end"] += 1
        raise
    finally:
        sending.cancel()
        writer.transport.abort()


async def attack_as_caller(name: str, target: Target, seen: Counter[str]) -> None:
    """Without an end."""
    connections, pieces = CALLERS[name]

    async def again_and_again() -> None:
        while True:
            await _call(target, pieces(target), seen)

    await asyncio.gather(*(again_and_again() for _ in range(connections)))


@functools.cache
def _bomb() -> bytes:
    return gzip.compress(b"[" + b" " * BOMB_BYTES)


def _reply(headers: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


_MESSAGE = {"role": "assistant", "content": "Yes."}
_CHAT_REPLY = _reply("", json.dumps({"choices": [{"message": _MESSAGE, "finish_reason": "stop"}]}).encode())
_ACKNOWLEDGEMENT = _reply("", b"{}")


async def _one(reply: bytes) -> Pieces:
    yield reply


async def _endless_reply_lines() -> Pieces:
    yield b"HTTP/1.1 200 OK\r\n"
    async for lines in _endless_lines():
        if not lines.startswith(b"GET"):
            yield lines


async def _endless_reply_line() -> Pieces:
    yield b"HTTP/1.1 200 OK\r\nX: "
    while True:
        yield PIECE


async def _endless_reply() -> Pieces:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    async for chunk in _chunks():
        yield chunk


async def _reply_in_single_bytes() -> Pieces:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    async for chunks in _single_bytes():
        yield chunks


TRAINERS: dict[str, tuple[Callable[[], Pieces], Callable[[], Pieces]]] = {
    "a trainer's gzip bombs": (
        lambda: _one(_reply("Content-Encoding: gzip\r\n", _bomb())),
        lambda: _one(_ACKNOWLEDGEMENT),
    ),
    "a trainer's endless header lines": (_endless_reply_lines, lambda: _one(_ACKNOWLEDGEMENT)),
    "a trainer's endless header": (_endless_reply_line, lambda: _one(_ACKNOWLEDGEMENT)),
    "a trainer's endless reply": (_endless_reply, lambda: _one(_ACKNOWLEDGEMENT)),
    "a trainer's reply in single bytes": (_reply_in_single_bytes, lambda: _one(_ACKNOWLEDGEMENT)),
    "a trainer's endless acknowledgement": (lambda: _one(_CHAT_REPLY), _endless_reply),
    "a trainer's gzip bombs as acknowledgements": (
        lambda: _one(_CHAT_REPLY),
        lambda: _one(_reply("Content-Encoding: gzip\r\n", _bomb())),
    ),
}
"""How it answers a chat call, and a result."""
CONTROL = "none, beside a busy process"
"""What this machine gives now: an attack that is no worse than this one is none."""
OWED = "what is owed at a restart"
"""The attack is the journal that the server starts on; its trainer takes everything."""
OWED_RESULTS = 240


async def serve_as_trainer(
    target: Target, chat: Callable[[], Pieces], result: Callable[[], Pieces], on_result: Callable[[bytes], None]
) -> asyncio.Server:
    """Answer every call in that way; ``on_result`` is given the body of each result."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
                body = await reader.readexactly(int(length.partition(":")[2]))
                is_chat = CHAT_PATH in head
                if not is_chat:
                    on_result(body)
                async for piece in (chat if is_chat else result)():
                    writer.write(piece)
                    await writer.drain()
        writer.transport.abort()

    return await asyncio.start_server(serve, LOOPBACK, target.trainer_port, backlog=BACKLOG)


async def attack_as_trainer(name: str, target: Target, seen: Counter[str]) -> None:
    """Keep some rollouts going; without an end."""
    slots = asyncio.Semaphore(ROLLOUTS_AT_ONCE)

    def ended(body: bytes) -> None:
        seen[f"a result: {json.loads(body).get('extra_fields', {}).get('outcome', 'none')}"] += 1
        slots.release()

    await serve_as_trainer(target, *TRAINERS[name], ended)
    for number in itertools.count():
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await slots.acquire()
        await _init(target, f"{name}-{number}")


async def _init(target: Target, rollout_id: str) -> None:
    init = {
        "rollout_id": rollout_id,
        "server_url": f"http://{LOOPBACK}:{target.trainer_port}",
        "messages": [{"role": "user", "content": "Well?"}],
        "completion_params": {},
        "metadata": {"turns": 1},
    }
    body = json.dumps(init).encode()
    head = (
        "POST /v1/rollout/init HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
    )
    with suppress(OSError):
        reader, writer = await asyncio.open_connection(LOOPBACK, target.port)
        writer.write(f"{head}Authorization: Bearer {target.key}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await reader.read()
        writer.close()


async def take_what_is_owed(target: Target, seen: Counter[str]) -> None:
    """Count the rollouts whose result has come, until all have."""
    ids: set[str] = set()
    all_came = asyncio.Event()

    def take(body: bytes) -> None:
        ids.add(json.loads(body)["rollout_id"])
        seen["delivered"] = len(ids)
        if len(ids) == OWED_RESULTS:
            all_came.set()

    await serve_as_trainer(target, lambda: _one(_CHAT_REPLY), lambda: _one(_ACKNOWLEDGEMENT), take)
    await all_came.wait()


async def be_busy() -> None:
    """Without an end."""
    while True:
        sum(range(100_000))
        await asyncio.sleep(0)


def attack(name: str, target: Target, seen: Counter[str]) -> Awaitable[None]:
    """The attack of that name."""
    if name == CONTROL:
        return be_busy()
    if name in CALLERS:
        return attack_as_caller(name, target, seen)
    if name in TRAINERS:
        return attack_as_trainer(name, target, seen)
    return take_what_is_owed(target, seen)


def main() -> None:
    """Attack for a time, and print what was seen."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[CONTROL, *CALLERS, *TRAINERS, OWED])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--trainer-port", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    seen: Counter[str] = Counter()
    if options.name in TRAINERS:
        _bomb()  # takes seconds, which are not the attack's

    async def for_a_time() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(
                attack(options.name, Target(options.port, options.key, options.trainer_port), seen), options.seconds
            )

    asyncio.run(for_a_time())
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main()
