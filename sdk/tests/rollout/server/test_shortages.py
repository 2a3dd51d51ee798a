"""Shortages of ours (the journal, memory) pass: nothing is lost by them, and no trainer is blamed."""

import asyncio
from typing import Any

import pytest
from support.fake_trainer import FakeTrainer
from support.journal import an_acceptance
from support.rollouts import eventually, until

from osmosis_ai.rollout.core.results import Outcome, StopReason, result_without_run
from osmosis_ai.rollout.core.settings import RolloutClientSettings
from osmosis_ai.rollout.core.watch import Observer, Verdict
from osmosis_ai.rollout.journal import Acceptance, Journal, JournalError, JournalRecord, MemoryJournal, RolloutState
from osmosis_ai.rollout.journal.base import CLAIM_LIMIT
from osmosis_ai.rollout.server.attempts import Delivery
from osmosis_ai.rollout.server.delivery import Courier
from osmosis_ai.rollout.server.parcels import Parcel
from osmosis_ai.rollout.server.pull.lane import PullLane
from osmosis_ai.rollout.server.recovery import Recovery
from osmosis_ai.rollout.server.rollouts import Rollouts
from osmosis_ai.rollout.wire.client import OsmosisLLMClient

RESULT = result_without_run("rollout", StopReason(Outcome.AGENT_ERROR, "boom"), [{"role": "user", "content": "Hi"}])
QUICK = RolloutClientSettings(retry_base_delay=0.1, retry_max_delay=1)


class ShortJournal(MemoryJournal):
    """Its operations named in ``failing`` fail as often as that says."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: dict[str, list[Exception]] = {}

    def _meet(self, name: str) -> None:
        if errors := self.failing.get(name):
            raise errors.pop()

    async def load(self, *arguments: Any) -> bytes | None:
        self._meet("load")
        return await super().load(*arguments)

    async def note_attempt(self, key: str, *, attempts: int, error: str) -> None:
        self._meet("note_attempt")
        await super().note_attempt(key, attempts=attempts, error=error)

    async def claim_abandoned(self, *arguments: Any) -> list[JournalRecord]:
        self._meet("claim_abandoned")
        return await super().claim_abandoned(*arguments)

    async def finish(self, key: str, result: bytes) -> bool:
        self._meet("finish")
        return await super().finish(key, result)


async def left_behind(journal: Journal, trainer: FakeTrainer, *, finished: bool) -> None:
    """A rollout whose owner is gone."""
    acceptance = an_acceptance(rollout_id="rollout", request=b'{"messages": [{"role": "user", "content": "Hi"}]}')
    about = {name: getattr(acceptance, name) for name in Acceptance.__slots__}
    await journal.open()
    await journal.accept(Acceptance(**about | {"server_url": trainer.url}))
    if finished:
        await journal.finish("key", RESULT.encoded)
    await journal.close()
    await journal.open()


class Server:
    """As much of one as takes up what was left."""

    def __init__(self, journal: Journal, deadline_seconds: float = 60.0) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.courier = Courier(journal, lambda **about: OsmosisLLMClient(**about), QUICK, deadline_seconds)
        self.recovery = Recovery(journal, self.courier, PullLane(journal, Rollouts(), 1, 2, 3), Observer(), self.spawn)

    def spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


@pytest.mark.parametrize("error", [MemoryError(), JournalError("no memory"), OSError("descriptors")], ids=repr)
@pytest.mark.parametrize("deadline_seconds", [60.0, 0.0])
async def test_a_result_that_cannot_be_loaded_is_no_attempt_and_is_tried_again(
    trainer: FakeTrainer, caplog: pytest.LogCaptureFixture, error: Exception, deadline_seconds: float
) -> None:
    journal = ShortJournal()
    await left_behind(journal, trainer, finished=True)
    journal.failing["load"] = [error] * 3
    await Server(journal, deadline_seconds).recovery.take_up_abandoned()
    await trainer.result("rollout")
    record = await eventually(lambda: journal.get("key"), lambda it: it is not None and it.settled_at is not None)
    assert record is not None
    assert (record.state, record.delivery_attempts) == (RolloutState.DELIVERED, 1)
    assert caplog.text.count("cannot be loaded yet") == 3


@pytest.mark.slow
@pytest.mark.parametrize("error", [MemoryError(), JournalError("no"), RuntimeError("a mistake")], ids=repr)
async def test_a_note_that_fails_loses_nothing(trainer: FakeTrainer, error: Exception) -> None:
    journal = ShortJournal()
    await left_behind(journal, trainer, finished=True)
    journal.failing["note_attempt"] = [error] * 100
    trainer.completed_answers = [503, 503, 503]
    await Server(journal).recovery.take_up_abandoned()
    await trainer.result("rollout")
    assert len(trainer.posts("rollout")) == 4


@pytest.mark.slow
async def test_a_full_disk_delays_what_is_reported_of_dead_processes(trainer: FakeTrainer) -> None:
    journal = ShortJournal()
    await left_behind(journal, trainer, finished=False)
    journal.failing["finish"] = [JournalError("the disk is full")] * 2
    await Server(journal).recovery.take_up_abandoned()
    result = await trainer.result("rollout")
    assert (result["extra_fields"]["outcome"], len(result["final_messages"])) == ("interrupted", 1)


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("where", ["finish", "load"])
async def test_what_a_round_cannot_deal_with_is_taken_up_in_the_next(
    trainer: FakeTrainer, caplog: pytest.LogCaptureFixture, where: str, finished: bool
) -> None:
    if finished and where == "finish":
        pytest.skip("it has its result")
    journal = ShortJournal()
    await left_behind(journal, trainer, finished=finished)
    journal.failing[where] = [MemoryError()]
    server = Server(journal)
    await server.recovery.take_up_abandoned()
    if not finished:
        await until(lambda: not server.tasks)
        assert trainer.posts("rollout") == []
        assert "the next round tries again" in caplog.text
    await server.recovery.take_up_abandoned()
    await trainer.result("rollout")
    await until(lambda: not server.tasks)
    assert len(trainer.posts("rollout")) == 1
    await server.recovery.take_up_abandoned()
    assert not server.tasks


async def test_a_claim_that_fails_is_made_in_the_next_round(trainer: FakeTrainer) -> None:
    journal = ShortJournal()
    await left_behind(journal, trainer, finished=True)
    journal.failing["claim_abandoned"] = [MemoryError()]
    server = Server(journal)
    with pytest.raises(MemoryError):
        await server.recovery.take_up_abandoned()
    await server.recovery.take_up_abandoned()
    await trainer.result("rollout")


async def test_a_failure_that_is_kept_for_its_text_keeps_nothing_else(trainer: FakeTrainer) -> None:
    """A traceback holds what its frames do: the body that was sent."""
    journal = ShortJournal()
    await left_behind(journal, trainer, finished=True)
    trainer.completed_answers = [503]
    delivery = Delivery(Parcel("key", len(RESULT.encoded), None), "rollout", trainer.url, None)
    await Server(journal).courier.attempt(delivery)
    error: BaseException | None = delivery.error
    assert "HTTP 503" in str(delivery.problem)
    while error is not None:
        assert error.__traceback__ is None
        error = error.__cause__ or error.__context__


@pytest.mark.slow
async def test_a_page_is_claimed_when_the_one_before_went_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osmosis_ai.rollout.server.recovery.PAGE_SECONDS", 3600.0)
    journal, may_go_out = MemoryJournal(), asyncio.Event()
    await journal.open()
    for number in range(3 * CLAIM_LIMIT):
        await journal.accept(an_acceptance(str(number)))
        await journal.finish(str(number), RESULT.encoded)
    await journal.close()
    await journal.open()
    server = Server(journal)

    async def attempt(delivery: Delivery) -> None:
        await may_go_out.wait()
        delivery.verdict = Verdict.ACKNOWLEDGED

    monkeypatch.setattr(server.courier, "attempt", attempt)
    taking = asyncio.ensure_future(server.recovery.take_up_abandoned())
    await until(lambda: len(server.tasks) >= CLAIM_LIMIT)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(server.tasks) == CLAIM_LIMIT, "the others are there for others"
    may_go_out.set()
    await taking
    await until(lambda: not server.tasks)
    assert (await journal.counts())[RolloutState.DELIVERED] == 3 * CLAIM_LIMIT
