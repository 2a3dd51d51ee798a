"""The contract, which both implementations keep."""

import asyncio

import pytest
from support.journal import TestClock, an_acceptance, claim_all
from support.journal_records import ACCEPTED, DELIVERED, FINISHED, KEPT, UNDELIVERABLE, bring, keys, result_of

from osmosis_ai.rollout.journal import Journal, JournalError, Payload, RolloutState, UnknownKeyError


async def test_an_accepted_rollout_is_on_record(journal: Journal, clock: TestClock) -> None:
    acceptance = an_acceptance("key", rollout_id="rollout", request=b"body")
    assert await journal.accept(acceptance) is None
    record = await journal.get("key")
    assert record is not None
    assert (record.state, record.accepted_at, record.payload_bytes) == (ACCEPTED, clock.now, len(b"body"))
    for name in set(acceptance.__slots__) - set(Payload):
        assert getattr(record, name) == getattr(acceptance, name)
    payloads = [await journal.load("key", payload) for payload in Payload]
    assert payloads == [acceptance.init_reply, acceptance.request, None]


async def test_a_taken_key_gives_the_first_record_and_writes_nothing(journal: Journal) -> None:
    await journal.accept(an_acceptance("key", rollout_id="first"))
    standing = await journal.accept(an_acceptance("key", rollout_id="second"))
    assert standing is not None
    assert standing.rollout_id == "first"
    assert await journal.find("second") == []


async def test_of_many_at_once_under_one_key_exactly_one_wins(journal: Journal) -> None:
    outcomes = await asyncio.gather(*(journal.accept(an_acceptance("key", rollout_id=str(n))) for n in range(50)))
    assert outcomes.count(None) == 1
    assert {record.rollout_id for record in outcomes if record is not None} == {str(outcomes.index(None))}


@pytest.mark.parametrize(("state", "kept_seconds"), KEPT.items())
async def test_a_key_is_taken_until_its_record_has_outlived_its_retention(
    journal: Journal, clock: TestClock, state: RolloutState, kept_seconds: float
) -> None:
    await bring(journal, "key", state)
    again = an_acceptance("key", rollout_id="again")
    clock.now += kept_seconds
    standing = await journal.accept(again)
    assert standing is not None
    assert not journal.is_over(standing)
    clock.now += 1
    assert journal.is_over(standing)
    assert await journal.accept(again) is None
    record = await journal.get("key")
    assert record is not None
    assert (record.rollout_id, record.state, await result_of(journal, "key")) == ("again", ACCEPTED, None)


@pytest.mark.parametrize("state", [ACCEPTED, FINISHED])
async def test_an_unsettled_record_is_never_replaced(journal: Journal, clock: TestClock, state: RolloutState) -> None:
    await bring(journal, "key", state)
    clock.now += 1_000_000
    assert await journal.accept(an_acceptance("key")) is not None


@pytest.mark.parametrize("step", [7200.0, -10_800.0, 1e9])
async def test_a_step_of_the_wall_clock_makes_nothing_old_nor_negative(
    journal: Journal, clock: TestClock, step: float
) -> None:
    await bring(journal, "running", ACCEPTED)
    await bring(journal, "delivered", DELIVERED)
    await bring(journal, "undeliverable", UNDELIVERABLE)
    clock.step = step
    clock.now += 1
    assert await journal.prune() == 0
    for key in ("delivered", "undeliverable"):
        assert await journal.accept(an_acceptance(key)) is not None
    await journal.finish("running", b"result")
    record = await journal.get("running")
    assert record is not None
    assert record.finished_at == record.accepted_at + 1
    assert journal.served_since(record.accepted_at) == 1


async def test_the_first_result_wins(journal: Journal, clock: TestClock) -> None:
    await journal.accept(an_acceptance("key"))
    clock.now += 5
    assert await journal.finish("key", b"first")
    clock.now += 5
    assert not await journal.finish("key", b"second")
    record = await journal.get("key")
    assert record is not None
    assert (record.state, record.payload_bytes, record.finished_at) == (FINISHED, len(b"first"), clock.now - 5)
    assert await result_of(journal, "key") == b"first"


async def test_a_result_may_be_recorded_again_by_who_delivers_it(journal: Journal) -> None:
    await journal.accept(an_acceptance("key"))
    assert await journal.finish("key", b"result")
    assert await journal.finish("key", b"result")
    await journal.close()
    await journal.open()
    assert not await journal.finish("key", b"result"), "it belongs to another"
    await claim_all(journal)
    await journal.settle("key", DELIVERED, attempts=1)
    assert not await journal.finish("key", b"result"), "it is delivered"


async def test_of_many_results_at_once_the_kept_one_is_the_one_that_was_told_so(journal: Journal) -> None:
    await journal.accept(an_acceptance("key"))
    results = [str(number).encode() for number in range(20)]
    outcomes = await asyncio.gather(*(journal.finish("key", result) for result in results))
    assert outcomes.count(True) == 1
    assert await result_of(journal, "key") == results[outcomes.index(True)]


async def test_the_request_is_dropped_when_the_result_is_known(journal: Journal) -> None:
    await bring(journal, "key", FINISHED)
    record = await journal.get("key")
    assert record is not None
    assert await journal.load("key", Payload.REQUEST) is None
    assert await journal.load("key", Payload.INIT_REPLY) == b'{"tools": []}'
    assert record.api_key == "callback-secret"


@pytest.mark.parametrize("state", [DELIVERED, UNDELIVERABLE])
async def test_a_settled_rollout_keeps_its_result_and_how_it_went(
    journal: Journal, clock: TestClock, state: RolloutState
) -> None:
    await bring(journal, "key", FINISHED)
    clock.now += 60
    assert await journal.settle("key", state, attempts=7, error="503")
    record = await journal.get("key")
    assert record is not None
    assert (record.state, record.settled_at) == (state, clock.now)
    assert await result_of(journal, "key") == b"result of key"
    assert (record.delivery_attempts, record.last_error) == (7, "503")


async def test_settling_twice_changes_nothing(journal: Journal) -> None:
    await bring(journal, "key", DELIVERED)
    before = await journal.get("key")
    assert not await journal.settle("key", DELIVERED, attempts=9)
    assert await journal.get("key") == before


async def test_an_acknowledgement_outranks_giving_up(journal: Journal) -> None:
    await bring(journal, "late", UNDELIVERABLE)
    await bring(journal, "early", DELIVERED)
    assert await journal.settle("late", DELIVERED, attempts=2)
    assert not await journal.settle("early", UNDELIVERABLE, attempts=2)
    assert await journal.counts() == {ACCEPTED: 0, FINISHED: 0, DELIVERED: 2, UNDELIVERABLE: 0}


async def test_a_rollout_without_a_result_cannot_be_settled(journal: Journal) -> None:
    await bring(journal, "key", ACCEPTED)
    with pytest.raises(JournalError, match="no result yet"):
        await journal.settle("key", DELIVERED, attempts=1)


async def test_an_unknown_key_cannot_be_finished_or_settled(journal: Journal) -> None:
    with pytest.raises(UnknownKeyError, match="'lost'"):
        await journal.finish("lost", b"result")
    with pytest.raises(UnknownKeyError, match="'lost'"):
        await journal.settle("lost", DELIVERED, attempts=1)


async def test_attempts_are_noted_while_delivery_lasts(journal: Journal) -> None:
    await bring(journal, "key", FINISHED)
    await bring(journal, "done", DELIVERED)
    for key in ("key", "done", "lost"):
        await journal.note_attempt(key, attempts=3, error="connection refused")
    record, done = await journal.get("key"), await journal.get("done")
    assert record is not None
    assert done is not None
    assert (record.delivery_attempts, record.last_error) == (3, "connection refused")
    assert (done.delivery_attempts, done.last_error) == (1, None)


@pytest.mark.parametrize("state", [DELIVERED, UNDELIVERABLE])
async def test_a_settled_record_can_be_delivered_again(journal: Journal, clock: TestClock, state: RolloutState) -> None:
    await bring(journal, "key", state)
    finished_at = clock.now
    clock.now += 100_000
    record = await journal.reopen("key")
    assert record is not None
    assert record == await journal.get("key")
    assert (record.state, record.payload_bytes, record.settled_at) == (FINISHED, len(b"result of key"), None)
    assert await result_of(journal, "key") == b"result of key"
    assert (record.finished_at, record.deliverable_since) == (finished_at, clock.now)
    assert record.delivery_attempts == 0
    assert await journal.settle("key", DELIVERED, attempts=1)


async def test_only_a_settled_record_can_be_delivered_again(journal: Journal) -> None:
    await bring(journal, "accepted", ACCEPTED)
    await bring(journal, "finished", FINISHED)
    for key in ("accepted", "finished", "lost"):
        assert await journal.reopen(key) is None


async def test_a_rollout_id_is_found_under_all_its_keys_newest_first(journal: Journal) -> None:
    for key in ("a", "b", "c"):
        await journal.accept(an_acceptance(key, rollout_id="same"))
    await journal.accept(an_acceptance("d", rollout_id="other"))
    assert [record.key for record in await journal.find("same")] == ["c", "b", "a"]
    assert await journal.find("none") == []


async def test_records_come_in_pages_newest_first(journal: Journal) -> None:
    for number in range(5):
        await bring(journal, str(number), DELIVERED if number % 2 else ACCEPTED)
    assert await keys(journal) == ["4", "3", "2", "1", "0"]
    assert [record.key for record in await journal.records(limit=2, offset=1)] == ["3", "2"]
    assert [record.key for record in await journal.records([DELIVERED])] == ["3", "1"]
    assert await journal.records([]) == []


async def test_counts_name_every_state(journal: Journal) -> None:
    assert await journal.counts() == dict.fromkeys(RolloutState, 0)
    await bring(journal, "a", ACCEPTED)
    await bring(journal, "b", UNDELIVERABLE)
    await bring(journal, "c", UNDELIVERABLE)
    assert await journal.counts() == {ACCEPTED: 1, FINISHED: 0, DELIVERED: 0, UNDELIVERABLE: 2}


async def test_the_oldest_unsettled_record_is_known(journal: Journal, clock: TestClock) -> None:
    assert await journal.oldest_unsettled() is None
    await bring(journal, "settled", DELIVERED)
    clock.now += 1
    await bring(journal, "finished", FINISHED)
    clock.now += 1
    await bring(journal, "accepted", ACCEPTED)
    assert await journal.oldest_unsettled() == clock.now - 1


async def test_messages_are_left_out_of_a_finished_rollout_for_good(journal: Journal) -> None:
    await bring(journal, "key", FINISHED)
    assert await journal.leave_out_messages("key")
    assert await journal.leave_out_messages("key")
    assert await journal.settle("key", UNDELIVERABLE, attempts=2)
    assert not await journal.leave_out_messages("key")
    await journal.reopen("key")
    await journal.close()
    await journal.open()
    (record,) = await claim_all(journal)
    assert (record.state, record.without_messages) == (FINISHED, True)
    assert await result_of(journal, "key") == b"result of key", "the recorded result stays as it is"


async def test_and_of_no_other(journal: Journal) -> None:
    await bring(journal, "accepted", ACCEPTED)
    await bring(journal, "delivered", DELIVERED)
    await bring(journal, "reopened", DELIVERED)
    await journal.reopen("reopened")
    for key in ("accepted", "delivered", "reopened"):
        assert not await journal.leave_out_messages(key)
    with pytest.raises(UnknownKeyError, match="'lost'"):
        await journal.leave_out_messages("lost")
    assert not any(record.without_messages for record in await journal.records())


async def test_the_next_rollout_under_a_key_has_its_messages(journal: Journal) -> None:
    await bring(journal, "key", FINISHED)
    await journal.leave_out_messages("key")
    await journal.settle("key", DELIVERED, attempts=2)
    await journal.purge(keys=["key"])
    await bring(journal, "key", FINISHED)
    record = await journal.get("key")
    assert record is not None
    assert not record.without_messages


async def test_what_is_large_is_in_no_record(journal: Journal) -> None:
    for number in range(3):
        await journal.accept(an_acceptance(str(number), rollout_id="same", request=bytes(1_000_000)))
    for key in ("1", "2"):
        await journal.finish(key, bytes(2_000_000))
    await journal.settle("2", DELIVERED, attempts=1)
    await journal.close()
    await journal.open()
    claimed = await claim_all(journal)
    assert [record.payload_bytes for record in claimed] == [1_000_000, 2_000_000]
    reopened = await journal.reopen("2")
    standing = await journal.accept(an_acceptance("0"))
    told = [*claimed, *await journal.records(), *await journal.find("same"), await journal.get("0"), reopened, standing]
    assert all(record is not None and len(repr(record)) < 1_000 for record in told)


async def test_of_an_unknown_key_there_is_nothing_to_load(journal: Journal) -> None:
    assert [await journal.load("lost", payload) for payload in Payload] == [None, None, None]


async def test_a_closed_journal_says_so(journal: Journal) -> None:
    await journal.close()
    await journal.close()
    with pytest.raises(JournalError, match="not open: open it first"):
        await journal.accept(an_acceptance())
    with pytest.raises(JournalError, match="not open: open it first"):
        await journal.note_attempt("key", attempts=1, error="")


async def test_a_journal_is_opened_once(journal: Journal) -> None:
    with pytest.raises(JournalError, match="open already"):
        await journal.open()


async def test_a_record_does_not_show_its_secrets(journal: Journal) -> None:
    await journal.accept(an_acceptance("key", request=b"the prompt"))
    await journal.finish("key", b"the transcript")
    shown = repr(await journal.get("key"))
    assert "callback-secret" not in shown
    assert "the prompt" not in shown
    assert "the transcript" not in shown


@pytest.mark.parametrize("key", ["", "a/../b", "nul\0inside", "é🎲", "'; DROP TABLE rollouts; --", "k" * 10_000])
async def test_a_key_is_any_text(journal: Journal, key: str) -> None:
    prefixed = "id:" + key
    assert await journal.accept(an_acceptance(prefixed, rollout_id=key)) is None
    assert await journal.accept(an_acceptance(prefixed, rollout_id=key)) is not None
    assert [record.key for record in await journal.find(key)] == [prefixed]


async def test_a_poll_is_noted_by_whoever_is_asked(journal: Journal, clock: TestClock) -> None:
    await bring(journal, "key", ACCEPTED)
    await journal.note_poll("nobody's")
    assert (await noted_poll(journal, "key")) is None
    for _ in range(2):
        clock.now += 30
        await journal.note_poll("key")
        assert await noted_poll(journal, "key") == clock.now
    await journal.close()
    await journal.open()
    assert [record.polled_at for record in await claim_all(journal)] == [clock.now]
    assert await journal.finish("key", b"result")
    assert await journal.settle("key", DELIVERED, attempts=1)
    clock.now += KEPT[DELIVERED] + 1
    await journal.accept(an_acceptance("key", rollout_id="again"))
    assert await noted_poll(journal, "key") is None, "of the record that was replaced"


async def noted_poll(journal: Journal, key: str) -> float | None:
    record = await journal.get(key)
    assert record is not None
    return record.polled_at


async def test_a_result_is_settled_by_another_owner_than_its_own(journal: Journal) -> None:
    await bring(journal, "key", FINISHED)
    await journal.close()
    await journal.open()  # another owner, which has claimed nothing
    assert await journal.settle("key", DELIVERED, attempts=1)
    record = await journal.get("key")
    assert record is not None
    assert record.state is DELIVERED
