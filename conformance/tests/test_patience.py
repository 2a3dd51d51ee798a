"""What is waited for, for how long, and what is said of a machine or a server on which it does not come."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rollout_conformance import KitOptions, asking
from rollout_conformance.asking import Asking
from rollout_conformance.endpoint import Request
from rollout_conformance.kit_trainer import KitTrainer
from rollout_conformance.lateness import watched
from rollout_conformance.own_connections import OwnConnections
from rollout_conformance.played import IMPATIENT_SECONDS, MANY_LOST, Call, Patience, PlayedRollout
from rollout_conformance.scripts import acknowledge, answering
from rollout_conformance.usual_causes import KEY_KEPT, NEVER_BEGAN
from rollout_conformance.vocabulary import Failed


def rollout_of(check_id: str, patience: Patience) -> PlayedRollout:
    return PlayedRollout(check_id, {"rollout_id": check_id, "messages": []}, answering(), acknowledge, patience)


async def test_where_nothing_begins_any_more_it_is_said_since_when() -> None:
    patience = Patience(0.05)
    lost = rollout_of("chat.stop", patience)
    with pytest.raises(Failed, match=r"none within 0\.05 s \(0 chat calls and 0 deliveries of a result\)$"):
        await lost.result()
    patience.last_call = Call(rollout_of("load.overload", patience), Request("POST", "/", {}, b"{}"), True)
    patience.last_call.came_at = time.monotonic() - 30
    with pytest.raises(Failed, match=r"; none has begun since 'load\.overload', 30 s before\)$"):
        await lost.result()


async def test_what_is_lost_though_it_was_accepted_after_a_refusal_is_a_matter_of_what_the_refusal_kept() -> None:
    for statuses, usually in (([202], NEVER_BEGAN), ([429, 202], KEY_KEPT)):
        lost = rollout_of("chat.stop", Patience(0.05))
        lost.statuses += statuses
        with pytest.raises(Failed) as caught:
            await lost.result()
        assert caught.value.usually == usually


def test_once_many_are_lost_further_ones_are_not_waited_for_as_long() -> None:
    assert Patience(60.0, lost=MANY_LOST - 1).seconds == 60.0
    assert Patience(60.0, lost=MANY_LOST).seconds == IMPATIENT_SECONDS


async def test_the_kit_knows_how_late_it_was() -> None:
    async with watched() as lateness:
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 - a machine that is busy
        await asyncio.sleep(0.01)
    assert lateness.worst_seconds >= 0.15


@asynccontextmanager
async def answers_heads_when_it_is_asked_for_its_health() -> AsyncIterator[str]:
    """As on a machine that is busy: the answer to a head is there no sooner than that to a later question."""
    was_asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if line.startswith(b"GET"):
            was_asked.set()
            await asyncio.sleep(0.01)
        await was_asked.wait()
        writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.slow
async def test_an_answer_to_a_head_is_waited_for_until_a_later_question_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "BODY_SECONDS", 0.1)
    async with answers_heads_when_it_is_asked_for_its_health() as url:
        asking_it = Asking(KitOptions(url), OwnConnections(60.0), KitTrainer(url, 5.0))
        assert await asking_it.post_head("Content-Length: 1000") == 401
