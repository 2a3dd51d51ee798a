"""The speed bench: every contender does the same rollouts, and a wrong one is seen. No time is judged here."""

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic_core import from_json, to_json

from bench import before as before_command, trainer as trainer_command
from bench.__main__ import main
from bench.contenders.roster import PROJECT, Contender
from bench.contenders.work import add
from bench.contest import Cell, Line, Round, contest
from bench.criteria import judge
from bench.load.http1 import Connection, MessageReader, ProtocolError, request, response
from bench.load.script import CALLBACK_KEY, Script
from bench.load.tally import quantile
from bench.load.trainer import Trainer
from bench.machine import describe
from bench.plan import FULL
from bench.report import whole
from bench.results import Results
from bench.scenarios import Scenario, play
from bench.soak import Window, verdict
from bench.workers import compare

TURNS = 3
ROUND = Round(
    rollouts=100,
    cpu_ms=1.0,
    per_second=1000.0,
    rollout_p50_ms=5.0,
    rollout_p99_ms=9.0,
    turn_p50_ms=0.5,
    turn_p99_ms=2.0,
    peak_rss_mb=70.0,
    load_busy=0.2,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "contenders",
    [
        [Contender.OURS, Contender.FLOOR, Contender.FASTAPI],
        [Contender.EXAMPLE, Contender.OURS_TRACED_NO_JOURNAL, Contender.CLIENT_PER_ROLLOUT],
    ],
)
async def test_contenders_do_every_rollout_right(contenders: list[Contender], tmp_path: Path) -> None:
    lines = await contest(Cell(concurrency=8, turns=TURNS), contenders, tmp_path, rounds=2, seconds=0.05)
    assert [line.contender for line in lines] == contenders
    for line in lines:
        assert line.errors == Counter(), line.contender
        assert line.rounds
        assert all(round_.rollouts >= 8 for round_ in line.rounds)
        assert line.median("cpu_ms") > 0
        assert line.median("peak_rss_mb") > 10


@pytest.mark.slow
async def test_two_checkouts_take_turns(tmp_path: Path) -> None:
    cell = Cell(concurrency=4, turns=TURNS)
    now, before = await contest(cell, [Contender.OURS], tmp_path, rounds=2, seconds=0.05, checkouts=(PROJECT, PROJECT))
    assert not now.errors + before.errors
    assert len(now.rounds) == len(before.rounds) == 2
    assert now.times(before, "cpu_ms") == pytest.approx(1, abs=0.9)


def test_a_checkout_without_an_environment_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        before_command.main([str(tmp_path)])
    assert ended.value.code == 2
    assert "has no environment: run `uv sync` there" in capsys.readouterr().err


@pytest.mark.slow
async def test_a_traced_server_writes_a_trace_of_each_rollout(tmp_path: Path) -> None:
    [line] = await contest(Cell(4, TURNS), [Contender.OURS_TRACED], tmp_path, rounds=1, seconds=0.05)
    assert not line.errors
    traces = read_traces(tmp_path)
    assert len(traces) >= line.rounds[0].rollouts
    assert all(trace.count('"llm_response"') == TURNS for trace in traces)


def read_traces(folder: Path) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in folder.rglob("*.jsonl")]


@pytest.mark.slow
async def test_a_scenario_polls_the_health_of_a_server_under_load(tmp_path: Path) -> None:
    scenario = Scenario("a few", Cell(20, 2, chat_delay_seconds=0.02), 40)
    [outcome] = await play(scenario, [Contender.OURS], tmp_path)
    assert (outcome.completed, outcome.errors) == (40, Counter())
    assert outcome.health_polls > 0
    assert outcome.peak_rss_mb >= outcome.idle_rss_mb > 10


@pytest.mark.slow
async def test_a_rollout_whose_init_is_sent_twice_runs_once(tmp_path: Path) -> None:
    [two] = await compare(tmp_path, rollouts=200, rounds=1, workers=[2])
    assert two.errors == Counter()
    assert two.rounds[0].rollouts == 200
    assert two.repeated_inits >= 200


@pytest.mark.slow
def test_the_command_prints_and_saves_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.json"
    short = ["--turns", "1", "--concurrency", "2", "--rounds", "1", "--seconds", "0.05"]
    assert main(["rollouts", "--only", "floor", *short, "--json", str(file)]) == 0
    assert "(a) raw ASGI floor" in capsys.readouterr().out
    results = json.loads(file.read_text(encoding="utf-8"))
    assert results["problems"] == []
    assert results["lines"][0]["rounds"][0]["rollouts"] > 0
    assert results["machine"]["cores"] > 0


@pytest.mark.parametrize(
    "arguments", [["--only", "nobody"], ["--turns", "0"], ["--concurrency", "many"], ["everything"], ["--rounds", "-1"]]
)
def test_a_wrong_argument_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


class Wire(Connection):
    """A connection on which answers are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[bytes] = []

    def message_received(self, head: bytes, body: bytes) -> None:
        raise AssertionError("nobody sends to it")

    def write(self, data: bytes) -> None:
        self.answers.append(data)


class Agent:
    """A server's part, spoken to the trainer directly, so that it can be wrong in each way there is."""

    def __init__(self) -> None:
        self.ended = 0
        self.trainer = Trainer(Script(TURNS, "http://127.0.0.1:1", "test"), 0.0, self._on_end)
        self.rollout_id = self.trainer.expect(1_000_000).decode()
        self.messages = from_json(self.trainer.script.init(1_000_000))["messages"]
        self.key = CALLBACK_KEY

    def _on_end(self) -> None:
        self.ended += 1

    def chat(self) -> None:
        body = self._call("/v1/chat/completions", {"messages": self.messages})
        if "choices" in body:
            message = body["choices"][0]["message"]
            self.messages += [message, *map(add, message.get("tool_calls", []))]

    def complete(self, **changes: object) -> None:
        result = {"status": "COMPLETED", "final_messages": self.messages, "reward": 1.0}
        self._call("/v1/rollout/completed", result | changes)

    def _call(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        wire, encoded = Wire(), to_json(body | {"rollout_id": self.rollout_id})
        [(head, sent)] = MessageReader().feed(request(path.encode(), encoded, self.key))
        self.trainer.take(wire, head, sent)
        [(_, answer)] = MessageReader().feed(wire.answers[0])
        decoded: dict[str, Any] = from_json(answer)
        return decoded


@pytest.fixture
async def agent() -> Agent:
    return Agent()


async def test_a_right_rollout_counts_as_completed(agent: Agent) -> None:
    for _ in range(TURNS):
        agent.chat()
    agent.complete()
    tally = agent.trainer.tally
    assert (tally.completed, tally.errors, agent.ended) == (1, Counter(), 1)
    assert len(tally.turn_seconds) == TURNS


async def test_a_conversation_of_another_rollout_is_an_error(agent: Agent) -> None:
    for _ in range(TURNS):
        agent.chat()
    agent.complete(final_messages=[*agent.messages[:-1], agent.messages[-1] | {"content": "#### 4"}])
    assert agent.trainer.tally.errors == {"a result with another conversation": 1}
    assert (agent.trainer.tally.completed, agent.ended) == (0, 1)


@pytest.mark.parametrize("changes", [{"status": "ERROR"}, {"reward": None}, {"final_messages": []}])
async def test_a_wrong_result_is_an_error(agent: Agent, changes: dict[str, object]) -> None:
    for _ in range(TURNS):
        agent.chat()
    agent.complete(**changes)
    assert (agent.trainer.tally.completed, agent.trainer.tally.num_errors) == (0, 1)


async def test_a_result_before_the_last_turn_is_an_error(agent: Agent) -> None:
    agent.chat()
    agent.complete()
    assert agent.trainer.tally.errors == {"a result before the last turn": 1}


async def test_a_second_run_of_a_rollout_is_an_error(agent: Agent) -> None:
    first = list(agent.messages)
    agent.chat()
    agent.messages = first
    agent.chat()
    assert agent.trainer.tally.errors == {"a chat call that does not follow from the one before": 1}


async def test_a_second_result_is_an_error(agent: Agent) -> None:
    for _ in range(TURNS):
        agent.chat()
    agent.complete()
    agent.complete()
    assert agent.trainer.tally.errors == {"a call after the result": 1}
    assert agent.ended == 1


async def test_a_call_without_the_rollouts_key_is_an_error(agent: Agent) -> None:
    agent.key = "another"
    agent.chat()
    assert agent.trainer.tally.num_errors == 1


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.data())
def test_messages_are_read_however_the_stream_is_cut(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(response(b"200 OK", body) for body in bodies)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=6)))
    reader, read = MessageReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        read += [body for _, body in reader.feed(stream[start:end])]
    assert read == bodies


def test_a_message_of_unknown_length_is_refused() -> None:
    with pytest.raises(ProtocolError, match="Content-Length"):
        list(MessageReader().feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))


def test_a_quantile_is_a_value_that_was_seen() -> None:
    hundred = array("d", range(1, 101))
    assert [quantile(hundred, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 51, 100, 100]


def results_with(our_cpu_ms: float) -> Results:
    """One cell in which the floor costs 1 ms, and a client per rollout 25."""
    cell = Cell(64, 2)
    costs = {Contender.OURS: our_cpu_ms, Contender.FLOOR: 1.0, Contender.CLIENT_PER_ROLLOUT: 25.0}
    lines = [Line(contender, cell, [replace(ROUND, cpu_ms=cost)]) for contender, cost in costs.items()]
    return Results(describe(), "the command", lines)


@pytest.mark.parametrize(("our_cpu_ms", "met"), [(1.2, [True, True]), (2.4, [True, False]), (2.6, [False, False])])
def test_targets_are_held_against_the_cpu_of_a_rollout(our_cpu_ms: float, met: list[bool]) -> None:
    assert [one.is_met for one in judge(results_with(our_cpu_ms))] == met


def test_errors_stand_at_the_head_of_a_report() -> None:
    results = results_with(1.0)
    assert "ERROR" not in whole(results)
    results.lines[0].errors["a rollout that did not end"] = 3
    assert "ours, concurrency 64, 2 turns: 3 times a rollout that did not end" in whole(results)


def windows(growth: float) -> Iterator[Window]:
    """Twenty minutes in which memory grows by ``growth`` MB each."""
    for minute in range(1, 21):
        yield Window(minute, 3000, 1.0, 40.0, 90.0, 0.6, 9.0, 70 + growth * minute, 1.0, Counter())


def test_a_soak_is_flat_only_if_memory_is() -> None:
    text, flat = verdict(list(windows(0.0)))
    assert flat
    assert "memory: flat" in text
    text, flat = verdict(list(windows(1.0)))
    assert not flat
    assert re.search(r"memory: NOT FLAT.*slope \+60\.00 MB an hour", text)


def test_a_soak_with_an_error_is_not_passed() -> None:
    minutes = list(windows(0.0))
    minutes[5].errors["an init without an answer"] = 1
    text, good = verdict(minutes)
    assert not good
    assert "ERROR: 1 times an init without an answer" in text


def test_the_full_plan_covers_what_the_table_promises() -> None:
    cells = {(cell.concurrency, cell.turns) for cell in FULL.cells}
    assert cells >= {(concurrency, turns) for concurrency in (1, 64, 512, 4096) for turns in (1, 2, 3, 50)}
    assert set(FULL.contenders) == set(Contender)


@pytest.mark.slow
def test_the_trainers_side_is_measured_on_right_rollouts(capsys: pytest.CaptureFixture[str]) -> None:
    assert trainer_command.main(["--rollouts", "40", "--rounds", "1", "--concurrency", "8", "--held", "50"]) == 0
    told = dict(re.split(r" {2,}", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["right"] == "40 of 40"
    ratio, trainer, server = (
        float(told[name].split()[0])
        for name in ("trainer over server", "trainer, CPU ms a rollout", "server, CPU ms a rollout")
    )
    assert ratio == pytest.approx(trainer / server, rel=0.1)
    assert int(told["50 in flight"].split()[0]) > 20
