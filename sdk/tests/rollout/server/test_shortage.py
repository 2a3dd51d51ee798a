"""What this machine is short of is waited for: descriptors and threads that are really not there."""

import asyncio
import errno
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.http_peer import HttpPeer
from support.plain_http import PLAIN

from osmosis_ai.rollout.core.offload import DaemonThreads
from osmosis_ai.rollout.core.shortage import hindered_connecting, is_local_shortage
from osmosis_ai.rollout.observe.traces.buffer import BufferedTrace
from osmosis_ai.rollout.openai_api import endpoint
from osmosis_ai.rollout.openai_api.answers import Generated
from osmosis_ai.rollout.openai_api.chat_api import ChatApi
from osmosis_ai.rollout.openai_api.endpoint import Endpoint
from osmosis_ai.rollout.wire import channels
from osmosis_ai.rollout.wire.channels import TrainerChannels

DEADLINE_SECONDS = 60.0


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Every file that would be opened is one too many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.open(os.devnull, os.O_RDONLY)
    os.close(spare)  # the lowest free number, below which all are taken
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False], ids=["http1", "httpx"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_call_without_a_descriptor_waits_for_one(
    own: bool, host: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(channels, "httptools_is_here", lambda: own)
    async with HttpPeer() as peer:
        ways = TrainerChannels(10, 10)
        url = peer.url.replace("127.0.0.1", host)
        with no_descriptors():
            call = asyncio.create_task(ways.post(url, b"{}", {}, DEADLINE_SECONDS))
            await asyncio.sleep(0.3)  # that nothing comes of it is what is tested
            assert not call.done()
        assert (await call).status_code == 200
        await ways.aclose()
    assert sum("ulimit -n" in record.message for record in caplog.records) == 1


async def test_it_waits_no_longer_than_the_call_may_take() -> None:
    async with HttpPeer() as peer:
        ways = TrainerChannels(10, 10)
        with no_descriptors(), pytest.raises(httpx.ConnectTimeout, match="short of"):
            await ways.post(peer.url, b"{}", {}, 0.3)


async def test_an_address_for_a_framework_is_had_without_a_descriptor() -> None:
    async def answer(messages: list[Any], fields: dict[str, Any]) -> Generated:
        return Generated({"role": "assistant", "content": "Yes."}, "stop", {})

    endpoint.keep_descriptor()
    for _ in range(3):  # it is kept again
        with no_descriptors():
            address = Endpoint.open(ChatApi(answer))
        async with httpx.AsyncClient(**PLAIN) as client:
            reply = await client.post(
                f"{address.base_url}/chat/completions",
                json={"model": "m", "messages": [{"role": "user", "content": "Well?"}]},
                headers={"Authorization": f"Bearer {address.api_key}"},
            )
        assert reply.json()["choices"][0]["message"]["content"] == "Yes."
        Endpoint.close(address)


async def test_nobody_there_is_no_shortage() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(httpx.ConnectError):
        await TrainerChannels(10, 10).post(f"http://127.0.0.1:{port}", b"", {}, DEADLINE_SECONDS)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (OSError(errno.EMFILE, ""), True),
        (OSError(errno.ENOBUFS, ""), True),
        (OSError(errno.ECONNREFUSED, ""), False),
        (OSError(errno.EBUSY, ""), False),
        (ExceptionGroup("", [OSError(errno.ECONNREFUSED, ""), OSError(errno.ENFILE, "")]), True),
        (socket.gaierror(socket.EAI_NONAME, ""), False),
        (socket.gaierror(socket.EAI_MEMORY, ""), True),
        (ValueError(), False),
    ],
)
def test_what_is_a_shortage(error: Exception, is_one: bool) -> None:
    assert is_local_shortage(error) is is_one


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, ""), OSError(errno.EBUSY, ""), OSError(errno.EINVAL, "")], ids=repr
)
async def test_whatever_the_resolver_says_without_a_descriptor_is_a_shortage(error: OSError) -> None:
    with no_descriptors():
        assert hindered_connecting(error)
    assert not hindered_connecting(error)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Whether the system allows threads again, which cannot be had from it without harm to the others here."""
    allowed, start = threading.Event(), threading.Thread.start

    def start_if_allowed(thread: threading.Thread) -> None:
        if not allowed.is_set():
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_if_allowed)
    return allowed


async def test_a_call_without_a_thread_waits_for_one(no_threads: threading.Event) -> None:
    threads = DaemonThreads(8)
    calls: list[Any] = [asyncio.wrap_future(threads.submit(lambda number=number: number)) for number in range(3)]
    await asyncio.sleep(0)
    assert not any(call.done() for call in calls)
    no_threads.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await asyncio.gather(*calls) == [0, 1, 2]


def test_without_an_event_loop_nobody_would_try_again(no_threads: threading.Event) -> None:
    threads = DaemonThreads(8)
    with pytest.raises(RuntimeError, match="no more threads"):
        threads.submit(print)
    no_threads.set()
    assert threads.submit(lambda: 1).result(DEADLINE_SECONDS) == 1


async def test_a_trace_without_a_descriptor_is_written_later(tmp_path: Path) -> None:
    trace = BufferedTrace(str(tmp_path), "r")
    with no_descriptors():
        trace.add(b'{"first":1}\n')
        await trace.flushed()
    trace.add(b'{"second":2}\n')
    await trace.flushed()
    assert await asyncio.to_thread(Path(trace.path).read_bytes) == b'{"first":1}\n{"second":2}\n'
