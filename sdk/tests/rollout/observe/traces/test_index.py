"""Reading traces back: foreign and torn files, following a file that grows, and what a summary tells."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from support.traces import TraceMaker, answer, call, calling, saying, write_random_traces

from osmosis_ai.rollout.core.trace.writer import TraceWriter
from osmosis_ai.rollout.observe.traces import reader, summary
from osmosis_ai.rollout.observe.traces.conversation import conversation_of
from osmosis_ai.rollout.observe.traces.index import TraceIndex
from osmosis_ai.rollout.observe.traces.reader import READ_BYTES, events_of, lines_of
from osmosis_ai.rollout.observe.traces.summary import Summary


def made(rollout_id: str = "r1") -> TraceMaker:
    """A rollout of two turns, without a result."""
    maker = TraceMaker(rollout_id).start("What is 1 + 2?", queue_ms=5.0)
    maker.turn(1, calling(call(1, "add", a=1, b=2), call(2, "add", a=1, b=2)), [answer(1, "3"), answer(2, "3")], ms=20)
    return maker.turn(2, saying("#### 3"), ms=10)


def indexed(folder: Path) -> TraceIndex:
    index = TraceIndex(folder)
    index.refresh()
    return index


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("Let me see.\n\n#### 3\n", "#### 3"),
        ([{"type": "text", "text": "so\n42"}], "42"),
        (f"so it is {'9' * 90}", f"...{'9' * 77}"),
        (None, ""),
        (7, ""),
    ],
)
def test_an_answer_is_the_last_line_of_what_the_model_said_last(tmp_path: Path, said: Any, answer: str) -> None:
    message = {"role": "assistant", "content": said}
    made().end(reward=1.0, final_messages=[{"role": "user", "content": "#### 7"}, message]).write(tmp_path)
    made("asked").end(reward=1.0, final_messages=[message, {"role": "user", "content": "#### 7"}]).write(tmp_path)
    assert {one.rollout_id: one.answer for one in indexed(tmp_path).rollouts} == {"r1": answer, "asked": ""}


class TestReading:
    def test_a_torn_last_line_waits_for_its_end(self, tmp_path: Path) -> None:
        path = tmp_path / "r.jsonl"
        path.write_bytes(b'{"event":"a","rollout_id":"r"}\n{"event":"b","roll')
        assert [event["event"] for event in events_of(path)] == ["a"]
        with path.open("ab") as file:
            file.write(b'out_id":"r"}\n')
        [(line, end)] = lines_of(path, len(b'{"event":"a","rollout_id":"r"}\n'))
        assert line == b'{"event":"b","rollout_id":"r"}'
        assert end == path.stat().st_size

    @pytest.mark.parametrize("size", [READ_BYTES - 2, READ_BYTES - 1, READ_BYTES, 3 * READ_BYTES + 7])
    def test_a_line_is_whole_however_often_is_read_for_it(self, tmp_path: Path, size: int) -> None:
        lines = [b"first", b"x" * size, b"", b"y" * size, b"last"]
        path = tmp_path / "r.jsonl"
        path.write_bytes(b"\n".join([*lines, b"torn"]))
        found = list(lines_of(path))
        assert [line for line, _ in found] == lines
        ends = [sum(len(line) + 1 for line in lines[: number + 1]) for number in range(len(lines))]
        assert [end for _, end in found] == ends
        for number, start in enumerate(ends[:-1]):
            assert list(lines_of(path, start, ends[-2])) == found[number + 1 : -1]

    def test_what_is_longer_than_a_line_can_be_is_passed_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reader, "MAX_LINE_BYTES", READ_BYTES)
        path = tmp_path / "r.jsonl"
        path.write_bytes(b"x" * (READ_BYTES + 10) + b'\n{"event":"a"}\n')
        assert [event["event"] for event in events_of(path)] == ["a"]
        assert [len(line) for line, _ in lines_of(path)] == [10, len(b'{"event":"a"}')]

    @pytest.mark.parametrize(
        "line",
        [b"", b"\x00\xff\xfe", b"[" * 5000, b"null", b'"event"', b'{"event": 1}', b"{}", b'{"event":"x"'],
        ids=repr,
    )
    def test_what_is_no_event_is_passed_over(self, tmp_path: Path, line: bytes) -> None:
        path = tmp_path / "r.jsonl"
        path.write_bytes(line + b'\n{"event":"a"}\n')
        assert [event["event"] for event in events_of(path)] == ["a"]

    @pytest.mark.parametrize("value", ["{}", "0"])
    def test_a_line_of_millions_of_values_is_passed_over(self, tmp_path: Path, value: str) -> None:
        maker = made()
        many = ",".join([value] * (1 + (reader.MAX_OBJECTS if value == "{}" else reader.MAX_VALUES)))
        maker.lines.append(f'{{"event":"chat_end","reply":[{many}]}}')
        maker.write(tmp_path)
        index = indexed(tmp_path)
        assert (len(index.rollouts), index.unreadable_lines) == (1, 1)

    def test_only_regular_files_are_read(self, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        made("secret").write(outside)
        folder = tmp_path / "traces"
        folder.mkdir()
        os.mkfifo(folder / "pipe.jsonl")
        (folder / "link.jsonl").symlink_to(outside / "secret.jsonl")
        (folder / "linked").symlink_to(outside)
        (folder / "loop").symlink_to(folder)
        (folder / "folder.jsonl").mkdir()
        made("r1").write(folder / "1" / "2")
        assert [one.rollout_id for one in indexed(folder).rollouts] == ["r1"]
        for path in (folder / "pipe.jsonl", folder / "link.jsonl", folder / "folder.jsonl"):
            with pytest.raises(OSError, match=r"."):
                list(lines_of(path))

    def test_a_file_of_gigabytes_is_passed_over_and_counted(self, tmp_path: Path) -> None:
        with (tmp_path / "large.jsonl").open("wb") as file:
            file.truncate(50 * 1024**3)  # of holes: it takes no room
        made("r1").write(tmp_path)
        began = time.process_time()
        index = indexed(tmp_path)
        assert [one.rollout_id for one in index.rollouts] == ["r1"]
        assert index.unreadable_files == 1
        assert time.process_time() - began < 5
        with pytest.raises(OSError, match="larger than a trace can be"):
            list(lines_of(tmp_path / "large.jsonl"))

    def test_one_trace_may_be_named_by_a_link(self, tmp_path: Path) -> None:
        made("r1").write(tmp_path / "folder")
        (tmp_path / "link.jsonl").symlink_to(tmp_path / "folder" / "r1.jsonl")
        assert [one.rollout_id for one in indexed(tmp_path / "link.jsonl").rollouts] == ["r1"]


class TestIndex:
    def test_a_summary_tells_what_came_of_a_rollout(self, tmp_path: Path) -> None:
        maker = made().end(
            reward=0.5, extra_fields={"outcome": "success", "messages_rewritten": ["messages[0] changed"]}
        )
        maker.delivered().write(tmp_path / "1795600000")
        [one] = indexed(tmp_path).rollouts
        assert (one.rollout_id, one.agent, one.status, one.outcome) == ("r1", "calculator", "COMPLETED", "success")
        assert (one.reward, one.finish_reason, one.turns, one.tool_calls, one.tool_errors) == (0.5, "stop", 2, 2, 0)
        assert (one.prompt_tokens, one.response_tokens, one.queue_ms, one.llm_ms) == (180, 80, 5.0, 30.0)
        assert one.duration_ms == pytest.approx(5 + 20 + 4 + 10 + 1)
        assert (one.prompt, one.error, one.is_settled) == ("What is 1 + 2?", None, True)
        assert one.warnings == ["messages[0] changed"]

    def test_an_id_of_many_digits_stays_the_one_it_is(self, tmp_path: Path) -> None:
        told = {"small": 7, "snowflake": 1234567890123456789, "less": -(10**40), "whole": 1e300, "endless": 10**200}
        TraceMaker("r1").start("Hi?", metadata=told).end().write(tmp_path / "1795600000")
        [one] = indexed(tmp_path).rollouts
        assert one.metadata == {"small": 7, "snowflake": "1234567890123456789", "less": f"-1{'0' * 40}"}

    def test_the_time_of_calls_that_failed_is_time_of_the_model(self, tmp_path: Path) -> None:
        maker = TraceMaker("r1").start("Hi?").add("chat_end", 27, turn=1, error="HTTP 500", latency_ms=27.0)
        maker.end(status="ERROR", error_message="HTTP 500", metrics={"llm_latency_ms": 0.0, "num_llm_calls": 0})
        maker.write(tmp_path)
        [one] = indexed(tmp_path).rollouts
        assert one.llm_ms == 27.0

    @pytest.mark.parametrize("reward", [1e300, -1.7e308, 1e-320, 0])
    def test_a_reward_of_any_size_is_told(self, tmp_path: Path, reward: float) -> None:
        parts = {"reward_components": {"right": reward}}
        made().end(reward=reward, extra_fields=parts).write(tmp_path)
        [one] = indexed(tmp_path).rollouts
        assert (one.reward, one.components, one.warnings) == (reward, {"right": reward}, [])

    @pytest.mark.parametrize("reward", [float("nan"), float("inf"), 10**400, "1", True], ids=repr)
    def test_what_is_no_reward_is_left_out_and_that_is_told(self, tmp_path: Path, reward: object) -> None:
        parts = {"reward_components": {"right": float("nan"), "brief": 0.5}}
        made().end(reward=reward, extra_fields=parts).write(tmp_path)
        [one] = indexed(tmp_path).rollouts
        assert (one.reward, one.components) == (None, {"brief": 0.5})
        assert one.warnings == [
            "its reward is no finite number, and is left out.",
            "1 part of its reward is no finite number, and is left out.",
        ]

    def test_a_failure_tells_why(self, tmp_path: Path) -> None:
        maker = made().add("rollout_error", error="KeyError: 'x'")
        maker.end(status="ERROR", error_message="KeyError: 'x'", extra_fields={"outcome": "agent_error"}).write(
            tmp_path
        )
        [one] = indexed(tmp_path).rollouts
        assert (one.status, one.outcome, one.error, one.is_settled) == ("ERROR", "agent_error", "KeyError: 'x'", False)

    def test_a_rollout_without_a_result_is_followed_to_its_end(self, tmp_path: Path) -> None:
        maker = made()
        path = maker.write(tmp_path)
        index = indexed(tmp_path)
        version = index.version
        [one] = index.rollouts
        assert (one.status, one.turns) == ("UNFINISHED", 2)
        assert index.refresh() == version
        assert list(index.since(version)) == []
        before = path.stat().st_size
        maker.end(reward=1.0).delivered("unanswered", error="OsmosisServerError: 503").write(tmp_path)
        assert index.refresh() > version
        assert [(position, one.status, one.reward) for position, one in index.since(version)] == [(0, "COMPLETED", 1.0)]
        assert one.end > before
        assert not one.is_settled

    def test_new_files_and_folders_are_found(self, tmp_path: Path) -> None:
        (tmp_path / "1").mkdir()
        index = indexed(tmp_path)
        made("r1").write(tmp_path / "1")
        index.refresh()
        made("r2").write(tmp_path / "1")
        made("r3").write(tmp_path / "2")
        index.refresh()
        assert sorted(one.rollout_id for one in index.rollouts) == ["r1", "r2", "r3"]

    def test_a_file_may_hold_several_runs_of_one_id(self, tmp_path: Path) -> None:
        first, second = made().end(reward=0.0).delivered(), made().end(reward=1.0).delivered()
        first.lines += second.lines
        first.write(tmp_path)
        index = indexed(tmp_path)
        assert [one.reward for one in index.rollouts] == [0.0, 1.0]
        assert [len(list(index.events(position))) for position in (0, 1)] == [len(second.lines)] * 2

    def test_the_agents_own_events_cost_no_parsing_but_belong_to_it(self, tmp_path: Path) -> None:
        path = made().write(tmp_path)
        writer = TraceWriter(str(tmp_path), "r1")
        writer.write("pre_llm", {"turn": 9})
        writer.write("rollout_error", {"error": "ValueError: boom"})
        index = indexed(tmp_path)
        [one] = index.rollouts
        assert (one.end, one.error) == (path.stat().st_size, "ValueError: boom")
        assert [event["event"] for event in index.events(0)][-2:] == ["pre_llm", "rollout_error"]

    def test_traces_of_agents_without_a_server_are_read_too(self, tmp_path: Path) -> None:
        writer = TraceWriter(str(tmp_path), "local-1")
        writer.write("llm_response", {"turn": 1, "latency_ms": 7.0, "num_tool_calls": 2})
        writer.write("rollout_complete", {"reward": 1.0, "finish_reason": "stop", "final_messages": [saying("hi")]})
        [one] = indexed(tmp_path).rollouts
        assert (one.status, one.reward, one.turns, one.tool_calls, one.llm_ms) == ("COMPLETED", 1.0, 1, 2, 7.0)

    def test_the_agents_own_events_are_enough_for_a_summary(self, tmp_path: Path) -> None:
        writer = TraceWriter(str(tmp_path), "local-1")
        writer.write("llm_response", {"turn": 0, "has_tool_calls": True, "tool_calls": [call(1, "add")] * 2})
        writer.write("llm_response", {"turn": 1, "has_tool_calls": False, "tool_calls": []})
        writer.write("rollout_complete", {"reward": 1.0, "finish_reason": "stop", "total_turns": 2})
        [one] = indexed(tmp_path).rollouts
        assert (one.status, one.reward, one.turns, one.tool_calls) == ("COMPLETED", 1.0, 2, 2)
        assert one.duration_ms is not None

    def test_foreign_files_hold_no_rollout(self, tmp_path: Path) -> None:
        (tmp_path / "results.jsonl").write_text('{"row_index": 1}\nnot json\n')
        (tmp_path / "readme.txt").write_text("hello")
        made().write(tmp_path)
        index = indexed(tmp_path)
        assert (len(index.rollouts), index.unreadable_lines) == (1, 2)

    def test_values_of_every_wrong_kind_harm_nothing(self, tmp_path: Path) -> None:
        wrong: list[Any] = [None, 1, "x", [], {}, [[]], [None], {"messages": 3}, True, 1e400, -5]
        maker = TraceMaker("r1")
        for name in ("trace_start", "run_start", "chat_start", "chat_end", "tool_call", "delivery", "rollout_complete"):
            for value in wrong:
                fields = dict.fromkeys(
                    ("request", "tools", "at", "appended", "reply", "usage", "latency_ms", "queue_ms", "reward",
                     "metrics", "extra_fields", "status", "error", "verdict", "final_messages", "outcome"), value
                )  # fmt: skip
                maker.add(name, **fields)
                maker.add("rollout_result", **fields)
        maker.write(tmp_path)
        index = indexed(tmp_path)
        assert len(index.rollouts) == len(wrong)
        for position in range(len(index.rollouts)):
            conversation_of(index.events(position))

    def test_an_event_that_nobody_thought_of_costs_itself_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def divide(summary: Summary, event: dict[str, Any]) -> None:
            raise ZeroDivisionError

        monkeypatch.setitem(summary._HANDLERS, "run_start", divide)
        made().end(reward=1.0).write(tmp_path)
        index = indexed(tmp_path)
        assert [(one.reward, one.turns) for one in index.rollouts] == [(1.0, 2)]
        assert index.unreadable_lines == 1

    def test_many_are_read_at_once(self, tmp_path: Path) -> None:
        write_random_traces(tmp_path, 300)
        index = indexed(tmp_path)
        assert len(index.rollouts) == 300
        assert {one.status for one in index.rollouts} == {"COMPLETED", "ERROR", "UNFINISHED"}

    def test_a_large_folder_can_be_read_bit_by_bit(self, tmp_path: Path) -> None:
        write_random_traces(tmp_path, 300)
        index, versions = TraceIndex(tmp_path), [0]
        while len(versions) == 1 or index.is_behind:
            versions.append(index.refresh(limit_seconds=0.002))
        assert len(versions) > 3
        assert versions == sorted(versions)
        assert len(index.rollouts) == 300
        assert len(list(index.since(versions[-2]))) < 300


class TestConversation:
    def test_it_is_that_of_the_result(self) -> None:
        maker = made().end(reward=1.0)
        conversation = conversation_of(_events(maker))
        assert (conversation.messages, conversation.is_final) == (maker.messages, True)
        assert [tool["function"]["name"] for tool in conversation.tools] == ["add", "multiply", "divide"]

    def test_without_a_result_it_is_what_was_said(self) -> None:
        maker = made()
        assert conversation_of(_events(maker)).messages == maker.messages

    def test_the_events_stay_what_they_are(self) -> None:
        events = _events(made())
        before = json.dumps(events)
        conversation_of(events)
        assert json.dumps(events) == before

    def test_a_rewritten_one_is_the_new_one(self) -> None:
        maker = made()
        maker.add("chat_start", turn=3, at=0, appended=[saying("anew")])
        assert conversation_of(_events(maker)).messages == [saying("anew")]


def _events(maker: TraceMaker) -> list[dict[str, object]]:
    return [json.loads(line) for line in maker.lines]
