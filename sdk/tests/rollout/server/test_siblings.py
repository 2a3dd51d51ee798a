"""Workers know from each other how much they have to do."""

import os
import time
from collections.abc import Iterator

import pytest

from osmosis_ai.rollout.server.siblings import ABSENT, SILENT_SECONDS, Siblings, shared_memory


@pytest.fixture
def three() -> Iterator[list[Siblings]]:
    memory = shared_memory(3)
    workers = [Siblings(memory, 3, index) for index in range(3)]
    for worker in workers:
        worker.beat()
    yield workers
    os.close(memory)


@pytest.mark.parametrize(
    ("own", "others", "ahead"),
    [
        (0, (0, 0), False),
        (50, (50, 50), False),
        (52, (50, 60), False),
        (60, (50, 60), True),
        (3, (0, 3), True),
        (2, (0, 0), False),
        (1000, (ABSENT, ABSENT), False),
        (1000, (ABSENT, 10), True),
    ],
)
def test_who_has_clearly_more_than_another_is_ahead(
    three: list[Siblings], own: int, others: tuple[int, int], ahead: bool
) -> None:
    for sibling, number in zip(three, (own, *others), strict=True):
        sibling.note(number)
    assert three[0].is_ahead is ahead


def test_workers_that_do_not_serve_yet_count_for_nothing(three: list[Siblings]) -> None:
    three[1].note(500)
    assert not three[1].is_ahead


def test_the_supervisor_takes_the_number_of_a_dead_worker_away() -> None:
    memory = shared_memory(2)
    supervisor, dead, worker = Siblings(memory, 2), Siblings(memory, 2, 0), Siblings(memory, 2, 1)
    os.close(memory)
    dead.beat()
    dead.note(0)
    worker.note(500)
    assert worker.is_ahead
    supervisor.clear(0)
    assert supervisor.beat_at(0) == 0.0
    assert not worker.is_ahead
    assert not supervisor.is_ahead


def test_a_worker_that_is_stopped_gets_no_connections_however_little_it_has_to_do(
    three: list[Siblings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for sibling, number in zip(three, (500, 400, 0), strict=True):
        sibling.note(number)
    assert three[1].is_ahead
    now = time.monotonic() + SILENT_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: now)
    three[0].beat()
    three[1].beat()
    assert three[0].is_ahead
    assert not three[1].is_ahead


def test_connections_are_let_go_one_at_a_time(three: list[Siblings]) -> None:
    for sibling, number in zip(three, (100, 0, 0), strict=True):
        sibling.note(number)
    assert [three[0].gives_way() for _ in range(3)] == [True, False, False]
    assert not three[1].gives_way()
