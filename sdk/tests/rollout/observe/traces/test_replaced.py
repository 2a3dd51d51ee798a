"""A file of traces that is replaced while it is followed, as by rsync or cp, and more of it than can be kept."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.traces import TraceMaker, saying

from osmosis_ai.rollout.observe.traces import followed, index
from osmosis_ai.rollout.observe.traces.index import TraceIndex


def replace(path: Path, content: str) -> None:
    """Another file takes the name, as with rsync."""
    part = path.with_suffix(".part")
    part.write_text(content)
    part.replace(path)


def rewrite(path: Path, content: str) -> None:
    """The same file holds something else."""
    path.write_text(content)


def text_of(*makers: TraceMaker) -> str:
    return "".join(f"{line}\n" for maker in makers for line in maker.lines)


def told(index: TraceIndex) -> list[tuple[str, str, int]]:
    index.refresh()
    return [(one.rollout_id, one.status, one.turns) for one in index.rollouts]


def test_a_rollout_that_was_copied_anew_stays_the_one_it_is(tmp_path: Path) -> None:
    maker = TraceMaker("r1").start("Go on.").turn(1, saying("One"))
    path, index = maker.write(tmp_path), TraceIndex(tmp_path)
    assert told(index) == [("r1", "UNFINISHED", 1)]
    replace(path, text_of(maker.turn(2, saying("Two"))))
    assert told(index) == [("r1", "UNFINISHED", 2)]
    version = index.version
    rewrite(path, "")
    assert told(index) == [("r1", "UNFINISHED", 2)]
    rewrite(path, text_of(maker.end(reward=1.0)))
    assert told(index) == [("r1", "COMPLETED", 2)]
    assert [(position, one.reward) for position, one in index.since(version)] == [(0, 1.0)]
    assert [event["event"] for event in index.events(0)][-1] == "rollout_result"
    with path.open("a") as growing:
        growing.write(f"{maker.delivered().lines[-1]}\n")
    index.refresh()
    assert [one.delivery for one in index.rollouts] == ["acknowledged"]


def test_several_of_one_id_stay_in_their_order(tmp_path: Path) -> None:
    makers = [TraceMaker("r1").start("Go on.").end(reward=reward) for reward in (0.0, 1.0)]
    path, index = makers[0].write(tmp_path), TraceIndex(tmp_path)
    for content in (text_of(*makers), text_of(*makers), text_of(*makers, TraceMaker("r2").start("Go on."))):
        replace(path, content)
        index.refresh()
    assert [(one.rollout_id, one.reward) for one in index.rollouts] == [("r1", 0.0), ("r1", 1.0), ("r2", None)]


@pytest.mark.parametrize("change", [replace, rewrite])
def test_nobody_is_given_the_events_of_another_rollout(tmp_path: Path, change: Callable[[Path, str], None]) -> None:
    path = TraceMaker("mine").start("Go on.").turn(1, saying("Mine")).end().write(tmp_path)
    index = TraceIndex(tmp_path)
    index.refresh()
    other = TraceMaker("other").start("A secret." * 100).turn(1, saying("A secret.")).end()
    change(path, text_of(other))
    os.utime(path, (0, 0))
    index.refresh()
    assert [one.rollout_id for one in index.rollouts] == ["mine", "other"]
    with pytest.raises(OSError, match="No such file"):
        list(index.events(0))
    assert {event["rollout_id"] for event in index.events(1)} == {"other"}


def test_names_are_cut_and_rollouts_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * 100_000
    maker = TraceMaker(long).start("Go on.").turn(1, saying("One"))
    maker.end(finish_reason=long, extra_fields={"outcome": long}).delivered(long)
    maker.lines[0] = maker.lines[0].replace("calculator", long)
    maker.rollout_id = "r1"
    path = maker.write(tmp_path)
    monkeypatch.setattr(followed, "MAX_ROLLOUTS", 3)
    monkeypatch.setattr(index, "MAX_ROLLOUTS", 3)
    path.write_text(text_of(maker) * 5)
    reader = TraceIndex(tmp_path)
    reader.refresh()
    assert (len(reader.rollouts), reader.unreadable_lines) == (3, 2)
    [one, *_] = reader.rollouts
    names = [one.rollout_id, one.agent, one.finish_reason, one.outcome, one.delivery]
    assert [name and len(name) for name in names] == [303] * 5
    replace(path, text_of(*(TraceMaker(f"another-{number}").start("Go on.") for number in range(3))))
    reader.refresh()
    assert len(reader.rollouts) == 3
    TraceMaker("r2").start("Go on.").write(tmp_path / "later")
    reader.refresh()
    assert (len(reader.rollouts), reader.unreadable_files) == (3, 1)
