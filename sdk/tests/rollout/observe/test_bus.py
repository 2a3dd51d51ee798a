"""The event bus: each observer is told of everything, and one that fails harms nobody."""

from pathlib import Path
from typing import Any

import pytest
from support.fake_trainer import FakeTrainer
from support.rollouts import ScriptedAgent, chat_once, init_body, lifespan_of, post_init, tool

from osmosis_ai.rollout.core.watch import NO_WATCH, Accepted, Observer, RolloutWatch, ToolOutcome, Verdict
from osmosis_ai.rollout.observe import bus as bus_module
from osmosis_ai.rollout.observe.bus import Bus
from osmosis_ai.rollout.observe.metrics import MetricsObserver
from osmosis_ai.rollout.server.app import create_app

ROLLOUT = Accepted("r", "http://trainer", [])
EVENTS = [name for name, event in vars(RolloutWatch).items() if callable(event)]
OF_APP = [name for name in vars(Observer) if not name.startswith("_")]


class Recorder(Observer):
    """Writes down what it is told; gives a mark of its own to what begins."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told = name, told

    def accepted(self, rollout: Accepted) -> RolloutWatch:
        return RecordingWatch(self.name, self.told)

    def init_refused(self, reason: str) -> None:
        self.told.append(f"{self.name} {reason}")


class RecordingWatch(RolloutWatch):
    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told = name, told

    def tool_begins(self, name: str, call_id: str) -> str:
        self.told.append(f"{self.name} begins {name}")
        return f"{self.name}'s {name}"

    def tool_ends(self, tool: Any, outcome: ToolOutcome) -> None:
        self.told.append(f"{self.name} ends {tool}")


class Broken(Observer):
    """Raises at every event of ``of``: of the app, of a rollout, or of both."""

    def __init__(self, events: list[str], watch: bool = True) -> None:
        for name in events:
            setattr(self, name, self._fail)
        if watch:
            self.accepted = lambda rollout: BrokenWatch()  # type: ignore[method-assign]

    def _fail(self, *_: Any) -> Any:
        raise RuntimeError("observer out of order")


class BrokenWatch(RolloutWatch):
    def __getattribute__(self, name: str) -> Any:
        if name not in EVENTS:
            return super().__getattribute__(name)

        def fail(*_: Any) -> Any:
            raise RuntimeError("observer out of order")

        return fail


@pytest.fixture(autouse=True)
def nothing_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "_reported", set())


def test_all_are_told_what_ends_in_reverse_and_each_gets_its_own_mark_back() -> None:
    told: list[str] = []
    bus = Bus([Recorder("one", told), Recorder("other", told)])
    bus.init_refused("invalid")
    watch = bus.accepted(ROLLOUT)
    first, second = watch.tool_begins("add", ""), watch.tool_begins("sub", "")
    watch.tool_ends(first, ToolOutcome.OK)
    watch.tool_ends(second, ToolOutcome.OK)
    assert told == [
        *("one invalid", "other invalid"),
        *("one begins add", "other begins add", "one begins sub", "other begins sub"),
        *("other ends other's add", "one ends one's add", "other ends other's sub", "one ends one's sub"),
    ]


def test_a_rollout_that_nobody_watches_costs_nothing() -> None:
    assert Bus([]).accepted(ROLLOUT) is NO_WATCH
    assert Bus([Observer(), Observer()]).accepted(ROLLOUT) is NO_WATCH
    assert Bus([]).recovered("r", "http://trainer", 0.0) is NO_WATCH


def test_the_bus_passes_on_every_event_there_is() -> None:
    watch = Bus([Recorder("one", [])]).accepted(ROLLOUT)
    assert [name for name in EVENTS if name not in vars(type(watch))] == []
    assert [name for name in OF_APP if name not in vars(Bus)] == []


async def test_one_that_raises_is_named_once_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    bus = Bus([Broken(["init_refused", "close", "loop_lag"]), Recorder("good", told)])
    for _ in range(3):
        bus.init_refused("invalid")
        watch = bus.accepted(ROLLOUT)
        watch.tool_ends(watch.tool_begins("add", ""), ToolOutcome.OK)
        watch.attempt_ends(watch.attempt_begins(1), Verdict.ACKNOWLEDGED, None)
        await watch.flushed()
    bus.loop_lag(0.1)
    await bus.close()
    assert told == ["good invalid", "good begins add", "good ends good's add"] * 3
    reported = [record.getMessage() for record in caplog.records]
    assert sum("<locals>.fail failed" in line for line in reported) == 1
    assert sum("Broken._fail failed" in line for line in reported) == 1
    assert "observer out of order" in caplog.text


async def test_a_rollout_ends_as_ever_under_an_observer_that_always_raises(
    trainer: FakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class BrokenMetrics(MetricsObserver):
        def accepted(self, rollout: Accepted) -> RolloutWatch:
            return BrokenWatch()

    monkeypatch.setattr("osmosis_ai.rollout.observe.metrics.MetricsObserver", BrokenMetrics)
    app = create_app(ScriptedAgent(chat_once, tools=[tool()]), debug_dir=str(tmp_path))
    async with lifespan_of(app):
        await post_init(app, init_body(server_url=trainer.url))
        result = await trainer.result("rollout-1")
    assert (result["status"], result["reward"]) == ("COMPLETED", 1.0)
    assert "rollout_result" in (tmp_path / "rollout-1.jsonl").read_text()
    assert "observer out of order" in caplog.text


def test_one_whose_rollouts_cannot_be_watched_is_left_out() -> None:
    told: list[str] = []
    watch = Bus([Broken(["accepted"], watch=False), Recorder("good", told)]).accepted(ROLLOUT)
    watch.tool_begins("add", "")
    assert told == ["good begins add"]


def test_what_ends_reaches_those_alone_that_took_in_its_beginning() -> None:
    class HalfBroken(RecordingWatch):
        def tool_begins(self, name: str, call_id: str) -> str:
            raise RuntimeError("observer out of order")

    class Half(Recorder):
        def accepted(self, rollout: Accepted) -> RolloutWatch:
            return HalfBroken(self.name, self.told)

    told: list[str] = []
    alone = Bus([Half("half", told)]).accepted(ROLLOUT)
    alone.tool_ends(alone.tool_begins("add", ""), ToolOutcome.OK)
    assert told == []
    both = Bus([Half("half", told), Recorder("good", told)]).accepted(ROLLOUT)
    both.tool_ends(both.tool_begins("add", ""), ToolOutcome.OK)
    assert told == ["good begins add", "good ends good's add"]
