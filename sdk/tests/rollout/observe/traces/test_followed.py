"""A file that is read whole tells what it tells when it is read line by line, as it was written."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from support.traces import TraceMaker, answer, call, calling, saying, write_random_traces

from osmosis_ai.rollout.observe.traces import followed
from osmosis_ai.rollout.observe.traces.followed import FollowedFile
from osmosis_ai.rollout.observe.traces.reader import event_on

METRICS = {"num_llm_calls": 2, "num_tool_calls": 1, "llm_latency_ms": 9.5, "tool_latency_ms": 1.5}


def told(file: FollowedFile) -> list[dict[str, Any]]:
    return [asdict(one) for one in file.rollouts]


def whole(path: Path) -> list[dict[str, Any]]:
    file = FollowedFile(str(path))
    file.read()
    return told(file)


def line_by_line(path: Path, lines: list[str]) -> list[dict[str, Any]]:
    path.unlink(missing_ok=True)
    file = FollowedFile(str(path))
    with path.open("a", encoding="utf-8") as growing:
        for line in lines:
            growing.write(f"{line}\n")
            growing.flush()
            file.read()
    return told(file)


def is_read_alike(path: Path, lines: list[str]) -> bool:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return whole(path) == line_by_line(path, lines)


maybe = st.sampled_from
texts = maybe(["", "sum 3", "İ" * 300, "x" * 900, 'said "outcome":"ok" and "error":'])
tool_messages = st.builds(answer, st.integers(1, 3), texts)
replies = st.one_of(
    st.builds(saying, texts),
    st.builds(lambda a: calling(call(1, "add", a=a), call(2, "sub", text='"error":1')), st.integers(0, 3)),
)
latencies = maybe([0.0, 1.5, 20.0])
events = st.one_of(
    st.builds(lambda at, appended: ("chat_start", {"turn": 1, "at": at, "appended": appended}),
              st.integers(0, 3), st.lists(tool_messages, max_size=2)),
    st.builds(lambda reply, ms, weights: ("chat_end", {"turn": 1, "reply": reply, "latency_ms": ms, **weights}),
              replies, latencies, maybe([{}, {}, {"weight_versions": [7]}, {"weight_versions": ["8"]}])),
    st.builds(lambda ms: ("chat_end", {"turn": 1, "error": "E: no", "latency_ms": ms}), latencies),
    st.builds(lambda outcome, ms: ("tool_call", {"name": "add", "outcome": outcome, "latency_ms": ms}),
              maybe(["ok", "ok", "error"]), latencies),
    st.builds(lambda ms: ("llm_response", {"turn": 1, "latency_ms": ms}), latencies),
    maybe([("rollout_error", {"error": "KeyError: 'x'"}), ("messages_rewritten", {"problem": "messages[1]"})]),
)  # fmt: skip
metrics = st.one_of(
    st.just(METRICS), st.builds(lambda name, value: {**METRICS, name: value}, maybe([*METRICS]), maybe([0, None, 3]))
)
results = st.builds(
    lambda status, messages, measured, extra: ("rollout_result", {
        "status": status, "final_messages": messages, "metrics": measured, "reward": 0.5, "extra_fields": extra}),
    maybe(["COMPLETED", "COMPLETED", "COMPLETED", "ERROR"]),
    st.lists(st.one_of(tool_messages, replies), max_size=5),
    metrics,
    maybe([{}, {}, {"messages_rewritten": ["messages[1] changed"]}]),
)  # fmt: skip
starts = st.builds(
    lambda messages, agent: ("trace_start", {"agent": agent, "request": {"messages": messages}}),
    st.lists(tool_messages, max_size=2),
    maybe(["a", "a", "a", None]),
)
rollouts = st.builds(
    lambda start, before, result, after: [*start, *before, *result, *after],
    st.lists(starts, max_size=1),
    st.lists(events, max_size=7),
    st.lists(results, max_size=2),
    st.lists(events, max_size=2),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rollouts, min_size=1, max_size=2))
def test_whole_or_line_by_line_it_is_the_same(tmp_path: Path, made: list[list[tuple[str, dict[str, Any]]]]) -> None:
    maker = TraceMaker("r1")
    for name, data in (event for one in made for event in one):
        maker.add(name, 10.0, **data)
    assert is_read_alike(tmp_path / "r1.jsonl", maker.lines)


def test_a_run_of_a_server_is_read_the_same_whole_or_line_by_line(tmp_path: Path) -> None:
    write_random_traces(tmp_path / "traces", 40)
    for path in (tmp_path / "traces").rglob("*.jsonl"):
        assert is_read_alike(tmp_path / "r.jsonl", path.read_text(encoding="utf-8").splitlines())


def test_what_another_process_read_is_taken_over_and_gone_on_from(tmp_path: Path) -> None:
    maker = TraceMaker("r1").start("What is 1 + 2?").turn(1, calling(call(1, "add", a=1, b=2)), [answer(1, "3")])
    path = maker.write(tmp_path)
    there, here = FollowedFile(str(path), "run"), FollowedFile(str(path), "run")
    there.read()
    assert here.take_over(there.told()) == there.rollouts
    assert here.kept() == there.kept()
    path.write_text("x" * (path.stat().st_size - 1) + "\n", encoding="utf-8")  # is not read again
    maker.lines.clear()
    maker.turn(2, saying("#### 3")).end(reward=1.0)
    with path.open("a", encoding="utf-8") as growing:
        growing.writelines(f"{line}\n" for line in maker.lines)
    here.read()
    assert (here.lost, [(one.prompt, one.turns, one.reward) for one in here.rollouts]) == (
        0,
        [("What is 1 + 2?", 2, 1.0)],
    )


def test_what_the_result_tells_again_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def noted(line: bytes) -> dict[str, Any] | None:
        read.append(line)
        return event_on(line)

    monkeypatch.setattr(followed, "event_on", noted)
    maker = TraceMaker("r1").start("What is 1 + 2?").turn(1, calling(call(1, "add", a=1, b=2)), [answer(1, "3")])
    maker.add("chat_end", 5, turn=2, error="HTTP 500", latency_ms=5.0).turn(3, saying("#### 3"), weight_versions=[7])
    path = maker.end(reward=1.0, metrics=METRICS).delivered().write(tmp_path)
    [one] = whole(path)
    assert b'"tools"' not in read[1]  # read[0] is the result
    names = [line.split(b'"')[3].decode() for line in read]
    assert sorted(names) == sorted(["trace_start", "run_start", *["chat_end"] * 2, "rollout_result", "delivery"])
    assert (one["turns"], one["tool_calls"], one["llm_ms"], one["weights"]) == (2, 1, 14.5, ["7"])
    assert one["tool_text"] == 'add {"a": 1, "b": 2}\n3'


def test_what_tools_said_before_the_rollout_is_not_searched(tmp_path: Path) -> None:
    maker = TraceMaker("r1")
    asked = [answer(9, "given before"), {"role": "user", "content": "What is 1 + 2?"}]
    maker.start("", messages=asked).messages = asked
    maker.turn(1, calling(call(1, "add", a=1, b=2)), [answer(1, "3")]).turn(2, saying("#### 3"))
    [one] = whole(maker.end(reward=1.0, metrics=METRICS).write(tmp_path))
    assert one["tool_text"] == 'add {"a": 1, "b": 2}\n3'


@pytest.mark.parametrize("metadata", [{"row_index": 7, "tools": [1]}, {"row_index": 7, "deep": {"a": 1, "tools": []}}])
@pytest.mark.parametrize("tools", [{}, {"tools": []}, {"tools": [{"function": {"name": "x", "tools": [{"a": 1}]}}]}])
def test_what_is_called_tools_elsewhere_harms_nothing(
    tmp_path: Path, metadata: dict[str, Any], tools: dict[str, Any]
) -> None:
    maker = TraceMaker("r1").add("trace_start", agent="a", request={"messages": [], "metadata": metadata}, **tools)
    [one] = whole(maker.write(tmp_path))
    assert (one["agent"], one["metadata"], one["last_at"]) == ("a", {"row_index": 7}, maker.time)
