"""The first signal drains, then the server's own handler ends it; the second ends it at once."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.rollouts import until

from osmosis_ai.rollout.server.signals import DRAIN_SIGNALS, SAME_SIGNAL_SECONDS, DrainOnSignal, Heard


class Server:
    """The part of a server that handles signals."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def handle(self, number: int, frame: object) -> None:
        self.received.append(number)


class Drain:
    """A drain that takes until it is told to end."""

    def __init__(self) -> None:
        self.begun = self.cancelled = False
        self.end = asyncio.Event()

    async def __call__(self) -> None:
        self.begun = True
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


@pytest.fixture
def server() -> Iterator[Server]:
    """Its handlers are installed, as uvicorn's are when its lifespan starts."""
    server = Server()
    before = {number: signal.signal(number, server.handle) for number in DRAIN_SIGNALS}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield server
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", DRAIN_SIGNALS)
async def test_the_servers_handler_is_called_when_the_drain_is_over(server: Server, number: int) -> None:
    drain = Drain()
    DrainOnSignal(drain)
    os.kill(os.getpid(), number)
    await until(lambda: drain.begun)
    assert server.received == []
    drain.end.set()
    await until(lambda: server.received)
    assert server.received == [number]


async def test_a_second_signal_does_not_wait_for_the_drain(server: Server) -> None:
    drain = Drain()
    DrainOnSignal(drain)
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: drain.begun)
    os.kill(os.getpid(), signal.SIGINT)
    await until(lambda: server.received)
    await until(lambda: drain.cancelled)
    assert server.received[0] == signal.SIGINT


async def test_ctrl_c_that_a_parent_passes_on_as_sigterm_is_one_signal(server: Server) -> None:
    drain = Drain()
    DrainOnSignal(drain)
    os.kill(os.getpid(), signal.SIGINT)
    await until(lambda: drain.begun)
    os.kill(os.getpid(), signal.SIGTERM)
    drain.end.set()
    await until(lambda: server.received)
    assert not drain.cancelled
    assert server.received == [signal.SIGINT]


async def test_a_terminal_that_closes_is_as_sigterm(server: Server) -> None:
    drain = Drain()
    drain_on_signal = DrainOnSignal(drain)
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: drain.begun)
    drain.end.set()
    await until(lambda: server.received)
    assert server.received == [signal.SIGTERM]
    drain_on_signal.restore()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None], ids=["nohup", "the application's own"])
async def test_a_hangup_that_somebody_has_seen_to_stays_theirs(server: Server, handler: Any) -> None:
    before = signal.signal(signal.SIGHUP, handler)
    try:
        drain_on_signal = DrainOnSignal(Drain())
        assert signal.getsignal(signal.SIGHUP) is handler
        drain_on_signal.restore()
        assert signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("numbers", "later", "is_second"),
    [
        ((signal.SIGTERM, signal.SIGTERM), 0.0, False),
        ((signal.SIGINT, signal.SIGTERM), 0.0, False),
        ((signal.SIGHUP, signal.SIGTERM), 0.0, False),
        ((signal.SIGTERM, signal.SIGINT), 0.0, True),
        ((signal.SIGTERM, signal.SIGTERM), SAME_SIGNAL_SECONDS, True),
        ((signal.SIGHUP, signal.SIGHUP), SAME_SIGNAL_SECONDS, True),
    ],
)
def test_what_is_only_passed_on_is_no_second_signal(
    monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, int], later: float, is_second: bool
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    heard = Heard()
    heard.note(numbers[0])
    now[0] += later
    heard.note(numbers[1])
    assert (heard.second_at is not None) is is_second
    assert heard.first_at == 100.0


async def test_two_signals_while_the_event_loop_is_blocked_are_two(server: Server) -> None:
    drain = Drain()
    DrainOnSignal(drain)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAME_SIGNAL_SECONDS + 0.1)  # noqa: ASYNC251 - what an agent does
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: server.received)
    assert not drain.begun or drain.cancelled


async def test_a_drain_that_fails_does_not_keep_the_server_alive(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise RuntimeError("journal on fire")

    DrainOnSignal(fail)
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: server.received)
    assert server.received == [signal.SIGTERM]
    assert "journal on fire" in caplog.text


async def test_after_restore_the_handlers_are_the_servers_again(server: Server) -> None:
    drain = Drain()
    drain_on_signal = DrainOnSignal(drain)
    drain_on_signal.restore()
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: server.received)
    assert not drain.begun


async def test_where_nobody_handles_signals_it_does_not_either(server: Server) -> None:
    defaults: dict[int, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    for number, handler in defaults.items():
        signal.signal(number, handler)
    DrainOnSignal(Drain())
    assert {number: signal.getsignal(number) for number in DRAIN_SIGNALS} == defaults


async def test_outside_the_main_thread_nothing_is_installed(server: Server) -> None:
    async def start() -> None:
        DrainOnSignal(Drain())

    thread = threading.Thread(target=lambda: asyncio.run(start()))
    thread.start()
    thread.join()
    assert [signal.getsignal(number) for number in DRAIN_SIGNALS] == [server.handle] * len(DRAIN_SIGNALS)
