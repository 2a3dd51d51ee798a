"""The contract: how records get another owner, and how they leave a journal."""

from support.journal import TestClock, an_acceptance, claim_all
from support.journal_records import ACCEPTED, DELIVERED, FINISHED, KEPT, UNDELIVERABLE, bring, keys, result_of

from osmosis_ai.rollout.journal import Journal, Payload


async def test_what_a_gone_owner_left_is_claimed_once_and_oldest_first(journal: Journal, clock: TestClock) -> None:
    for key, state in {"a": ACCEPTED, "b": DELIVERED, "c": FINISHED, "d": UNDELIVERABLE, "e": ACCEPTED}.items():
        clock.now += 1
        await bring(journal, key, state)
    await journal.close()
    await journal.open()
    claimed = await claim_all(journal, page=2)
    assert [(record.key, record.state) for record in claimed] == [("a", ACCEPTED), ("c", FINISHED), ("e", ACCEPTED)]
    assert [await result_of(journal, record.key) for record in claimed] == [None, b"result of c", None]
    assert await journal.load("a", Payload.REQUEST) == b'{"n": 1}'
    assert claimed == [await journal.get(key) for key in ("a", "c", "e")]
    assert await journal.claim_abandoned() == []


async def test_own_records_are_never_claimed(journal: Journal) -> None:
    await bring(journal, "accepted", ACCEPTED)
    await bring(journal, "finished", FINISHED)
    assert await journal.claim_abandoned() == []


async def test_settled_records_are_pruned_when_their_retention_is_over_and_others_never(
    journal: Journal, clock: TestClock
) -> None:
    for key, state in {"a": ACCEPTED, "f": FINISHED, "d": DELIVERED, "u": UNDELIVERABLE}.items():
        await bring(journal, key, state)
    clock.now += KEPT[DELIVERED]
    await bring(journal, "young", DELIVERED)
    assert await journal.prune() == 0
    clock.now += 1
    assert await journal.prune() == 1
    assert await keys(journal) == ["young", "u", "f", "a"]
    assert await journal.find("rollout of d") == []
    clock.now += KEPT[UNDELIVERABLE]
    assert await journal.prune() == 2
    assert await keys(journal) == ["f", "a"]


async def test_an_operator_purges_by_key_and_by_state(journal: Journal) -> None:
    for number in range(3):
        await bring(journal, f"delivered-{number}", DELIVERED)
        await bring(journal, f"undeliverable-{number}", UNDELIVERABLE)
    assert await journal.purge(keys=["delivered-1", "lost"], states=[UNDELIVERABLE]) == 4
    assert await keys(journal) == ["delivered-2", "delivered-0"]
    assert await journal.purge() == 0


async def test_a_purge_spares_what_somebody_works_on(journal: Journal) -> None:
    await bring(journal, "accepted", ACCEPTED)
    await bring(journal, "finished", FINISHED)
    assert await journal.purge(keys=["accepted"], states=[FINISHED]) == 0
    await journal.close()
    await journal.open()
    assert await journal.purge(keys=["accepted"], states=[FINISHED]) == 2


async def test_a_purged_key_can_be_accepted_anew(journal: Journal) -> None:
    await bring(journal, "key", DELIVERED)
    await journal.purge(keys=["key"])
    assert await journal.accept(an_acceptance("key")) is None
    assert await result_of(journal, "key") is None
