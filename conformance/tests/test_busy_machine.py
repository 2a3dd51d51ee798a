"""What a machine that is busy, or stands still for a moment, does not change of a verdict."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from servers.model import Refusal
from servers.serving import serving
from servers.small import Json, Rollout, SmallServer

from rollout_conformance import KitOptions, Result, Status, asking, run, select
from rollout_conformance.asking import Asking
from rollout_conformance.checks.delays import fault_of_waits
from rollout_conformance.checks.init import HANG_UPS
from rollout_conformance.endpoint import Answer, Request
from rollout_conformance.kit import Kit
from rollout_conformance.kit_trainer import KitTrainer
from rollout_conformance.lateness import TRIES, reaction_seconds, told_in_time
from rollout_conformance.own_connections import OwnConnections
from rollout_conformance.played import Call, Patience, PlayedRollout
from rollout_conformance.scripts import acknowledge, answering
from rollout_conformance.vocabulary import Failed, NotExercised, TooBusy

STALL_SECONDS = 0.5
WHOLE = b'{"choices": [{"message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}]}'
DOUBLING, STEADY, NONE = (0.1, 0.2, 0.4), (0.8, 0.8, 0.8), (0.0, 0.0, 0.0)


def stalled(waits: tuple[float, ...], which: int) -> list[tuple[float, ...]]:
    """Six rollouts' waits, of which one is longer for two of them."""
    longer = tuple(wait + STALL_SECONDS * (number == which) for number, wait in enumerate(waits))
    return [longer, longer, waits, waits, waits, waits]


@pytest.mark.parametrize("which", range(3))
def test_a_machine_that_stands_still_changes_no_verdict_on_delays(which: int) -> None:
    assert fault_of_waits(stalled(DOUBLING, which), "calls") is None
    assert "longer waits" in str(fault_of_waits(stalled(STEADY, which), "calls"))
    assert "at least 0.2 s" in str(fault_of_waits(stalled(NONE, which), "calls"))


def test_one_wait_that_is_as_it_is_meant_tells_it_from_a_machine_that_is_always_busy() -> None:
    busy = [tuple(wait + 0.9 for wait in DOUBLING)] * 5
    assert "longer waits" in str(fault_of_waits(busy, "calls"))
    assert fault_of_waits([*busy, DOUBLING], "calls") is None


def test_a_first_wait_that_may_be_the_machines_is_no_fault_of_the_server() -> None:
    # As seen of a server that doubles its waits, where the machine was given to others.
    seen = [(1.86, 1.6, 1.52)] * 6
    assert isinstance(fault_of_waits(seen, "deliveries", late_seconds=0.9), TooBusy)
    assert "1.86 s before the first, 1.52 s before the third" in str(fault_of_waits(seen, "deliveries", 0.8))


@pytest.mark.parametrize("late_seconds", [0.0, 0.1, 0.25])
def test_a_fault_is_one_whatever_part_of_the_first_wait_is_the_machines(late_seconds: float) -> None:
    waits = [tuple(wait + late_seconds for wait in STEADY)] * 6
    assert isinstance(fault_of_waits(waits, "calls", late_seconds), Failed)
    assert isinstance(fault_of_waits([tuple(wait + 2.0 for wait in DOUBLING)] * 6, "calls", 2.0), TooBusy)


def test_a_server_may_be_late_where_the_kit_is_not() -> None:
    rollout = PlayedRollout("", {"rollout_id": "r", "messages": []}, answering(), acknowledge, Patience(1.0))
    assert reaction_seconds(rollout) == 0.0
    chat, result = (Call(rollout, Request("POST", "/", {}, b"{}"), True) for _ in range(2))
    chat.answer, chat.answered_at, result.came_at = Answer(body=WHOLE), chat.came_at, chat.came_at + 1.25
    rollout.chats.append(chat)
    assert reaction_seconds(rollout) == 0.0
    rollout.completions.append(result)
    assert reaction_seconds(rollout) == pytest.approx(1.25)


@pytest.mark.parametrize("is_busy_twice", [False, True])
async def test_what_the_machine_was_too_busy_for_is_tried_again_when_less_goes_on(*, is_busy_twice: bool) -> None:
    tried, told = [], list[Result]()

    async def look(kit: Kit) -> None:
        tried.append(kit)
        if len(tried) == 1 or is_busy_twice:
            raise TooBusy("it was late")

    one = replace(select(["retries.delay"])[0], run=look)
    async with serving(SmallServer()) as url:
        report = await run(KitOptions(url), [one], on_result=told.append)
    assert len(tried) == 2
    assert told == list(report.results)
    assert [result.status for result in told] == [Status.NOT_EXERCISED if is_busy_twice else Status.PASSED]


class HasNoRoomAtFirst(SmallServer):
    """Refuses the inits whose sender has hung up, and the next one."""

    asked = 0

    def require_room(self) -> None:
        self.asked += 1
        if self.asked <= 2 + HANG_UPS:
            raise Refusal(429, "Too many rollouts", "at_capacity", Retry_After="0")


async def test_an_init_whose_sender_hung_up_may_have_been_refused_for_want_of_room() -> None:
    async with serving(HasNoRoomAtFirst()) as url:
        options = KitOptions(url, timeout_seconds=5.0, settle_seconds=0.1)
        [result] = (await run(options, select(["init.hang_up"]))).results
    assert result.status is Status.PASSED, result.reason


class IsLateAtFirst(SmallServer):
    """Answers those inits 408 whose sender has hung up, and the next one's result comes late; then all is well."""

    asked = 0

    def require_room(self) -> None:
        self.asked += 1
        if self.asked <= 1 + HANG_UPS:
            raise Refusal(408, "The head did not arrive in time")

    async def deliver(self, rollout: Rollout, result: Json) -> None:
        await asyncio.sleep(0.3 if self.asked == 2 + HANG_UPS else 0)
        await super().deliver(rollout, result)


async def test_a_server_that_is_late_may_not_have_read_an_init_whose_sender_hung_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rollout_conformance.checks.init.LATE_SECONDS", 0.25)
    async with serving(IsLateAtFirst()) as url:
        options = KitOptions(url, timeout_seconds=1.0, settle_seconds=0.1)
        [result] = (await run(options, select(["init.hang_up"]))).results
    assert result.status is Status.PASSED, result.reason


def standing_still(times: int, found: Failed | None = None) -> tuple[Callable[[], Awaitable[None]], list[int]]:
    """A look during which the kit stands still the first ``times``; and one item for each that was made."""
    made: list[int] = []

    async def look() -> None:
        made.append(len(made))
        await asyncio.sleep(0)  # so that it is watched
        if len(made) <= times:
            time.sleep(0.25)  # noqa: ASYNC251 - that is what it is about
        await asyncio.sleep(0)
        if found is not None:
            raise found

    return look, made


async def test_that_nothing_came_too_soon_is_not_said_by_a_kit_that_was_late() -> None:
    look, made = standing_still(TRIES)
    with pytest.raises(NotExercised, match=r"where 0\.2 s had to be told"):
        await told_in_time(look, 0.2)
    assert len(made) == TRIES


async def test_a_kit_that_was_late_looks_again() -> None:
    look, made = standing_still(1)
    await told_in_time(look, 0.2)
    assert len(made) == 2


async def test_what_came_too_soon_did_so_however_late_the_kit_was() -> None:
    look, _ = standing_still(1, Failed("none before 2 s", "one after 1 s"))
    with pytest.raises(Failed, match="one after 1 s"):
        await told_in_time(look, 0.2)


@asynccontextmanager
async def answering_cancels(status_of: Callable[[int], int]) -> AsyncIterator[tuple[Asking, list[int]]]:
    """A server that answers the nth cancel so, and what it answered."""
    answered: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        answered.append(status_of(len(answered)))
        writer.write(b"HTTP/1.1 %d Any\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}" % answered[-1])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield Asking(KitOptions(url), OwnConnections(60.0), KitTrainer(url, 60.0)), answered


async def test_a_rollout_is_cancelled_though_another_process_takes_many_connections_in_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "ASKED_AGAIN_SECONDS", 0.001)
    async with answering_cancels(lambda asked: 202 if asked == 60 else 409) as (kit, _):
        assert (await kit.cancel_where_it_runs("one")).status_code == 202


async def test_where_no_process_cancels_it_that_is_the_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ELSEWHERE_SECONDS", 0.1)
    async with answering_cancels(lambda asked: 409) as (kit, answered):
        with pytest.raises(Failed, match="202 to the cancel of a rollout that runs; got 409"):
            await kit.cancel_where_it_runs("one")
    assert len(answered) > 1
