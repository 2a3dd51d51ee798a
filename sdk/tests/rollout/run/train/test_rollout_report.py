import dataclasses
import io
import json
from typing import Any

import pytest

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import RolloutRequest, RolloutResponse, RolloutStatus
from osmosis_ai.rollout.run.errors import PolicyError
from osmosis_ai.rollout.run.tally import MAX_PROBLEMS, MAX_REWRITES_SHOWN, MAX_ROWS_NAMED, OTHER_PROBLEMS
from osmosis_ai.rollout.run.train.call_watch import CallWatch
from osmosis_ai.rollout.run.train.printer import MAX_TABLE_LINES, ReportPrinter
from osmosis_ai.rollout.run.train.rollout_report import RolloutReport, record_of
from osmosis_ai.rollout.run.zero_reasons import CALLS_AS_TEXT, EMPTY, OUT_OF_TURNS, TRUNCATED
from osmosis_ai.rollout.trainer import ChatCall, Ending, RolloutOutcome
from osmosis_ai.rollout.trainer.errors import CallRefusedError


def ended(
    outcome: Ending = Ending.COMPLETED, reward: float | None = 1.0, problem: str | None = None, **result: Any
) -> RolloutOutcome:
    has_result = outcome in (Ending.COMPLETED, Ending.ERROR)
    return RolloutOutcome(
        request=RolloutRequest(rollout_id="id-7", server_url="http://t", messages=[], completion_params={}),
        outcome=outcome,
        result=RolloutResponse(
            rollout_id="id-7", status=RolloutStatus(outcome.value), reward=reward, **{"finish_reason": "stop", **result}
        )
        if has_result
        else None,
        problem=problem,
        turns=2,
        tool_calls=1,
        latency_seconds=0.25,
    )


def report_of(*outcomes: RolloutOutcome, planned: int | None = None) -> RolloutReport:
    report = RolloutReport(planned=len(outcomes) if planned is None else planned)
    for row_index, outcome in enumerate(outcomes):
        report.add(row_index, 0, outcome)
    report.duration_ms = 2000.0
    return report


FAILED = ended(Ending.ERROR, 0.0, "boom in id-7")


class TestZeros:
    async def reason(self, finish_reason: str, outcome: RolloutOutcome) -> str | None:
        async def complete(call: ChatCall) -> CompletionsResult:
            return CompletionsResult({"role": "assistant", "content": "7"}, [], [], {}, finish_reason)

        watch = CallWatch(complete)
        tools = [{"type": "function", "function": {"name": "add"}}]
        await watch(ChatCall("id-7", [], tools, {}))
        return watch.zero_reason(outcome)

    @pytest.mark.parametrize(
        ("finish_reason", "result", "reason"),
        [
            ("length", {}, TRUNCATED),
            ("stop", {"finish_reason": "max_turns"}, OUT_OF_TURNS),
            ("stop", {"final_messages": [{"role": "assistant", "content": "7"}]}, "called no tool although 1 was"),
            ("stop", {"final_messages": [{"role": "assistant", "content": "<tool_call>"}]}, CALLS_AS_TEXT),
            ("stop", {"final_messages": [{"role": "assistant", "content": ""}]}, EMPTY),
        ],
    )
    async def test_a_zero_has_a_reason(self, finish_reason: str, result: dict[str, Any], reason: str) -> None:
        outcome = dataclasses.replace(ended(reward=0.0, **result), tool_calls=0)
        found = await self.reason(finish_reason, outcome)
        assert found is not None
        assert found.startswith(reason)
        report = RolloutReport(planned=1)
        report.add(0, 0, outcome, found)
        assert f"Scored 0 or less: 1\n    1 of 1: {found}\n" in printed(report)
        assert report.summary()["zero_reasons"] == {found: 1}

    async def test_a_call_that_failed_names_the_failure_of_its_rollout_as_test_does(self) -> None:
        async def complete(call: ChatCall) -> CompletionsResult:
            raise CallRefusedError("The policy failed.") from PolicyError("The policy failed.")

        watch = CallWatch(complete)
        for server_says, kind in (("llm_error", "policy"), ("agent_error", None)):
            with pytest.raises(CallRefusedError):
                await watch(ChatCall("id-7", [], [], {}))
            outcome = ended(Ending.ERROR, None, "The policy failed.", extra_fields={"outcome": server_says})
            assert watch.error_kind(outcome) == kind
            report = RolloutReport(planned=1)
            report.add(0, 0, outcome, error_kind=kind)
            assert report.failures == {kind or server_says: 1}

    async def test_what_is_not_known_is_no_reason(self) -> None:
        assert await self.reason("length", ended(reward=1.0)) is None
        assert await self.reason("length", FAILED) is None
        assert await self.reason("stop", dataclasses.replace(ended(reward=0.0), tool_calls=0)) is None


def printed(report: RolloutReport, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    printer = ReportPrinter(stream)
    printer.print_table(report)
    printer.print_summary(report)
    stream.flush()
    return raw.getvalue().decode(encoding)


def in_letters(number: int) -> str:
    """A word of its own for each number: texts that differ only in digits are one problem."""
    return "".join(chr(ord("g") + int(digit)) for digit in str(number))


class TestReport:
    def test_the_mean_is_over_completed_rollouts_with_a_reward(self) -> None:
        report = report_of(ended(), ended(reward=0.0), ended(reward=None), FAILED)
        assert report.mean_reward == 0.5
        assert report.rewarded == 2
        assert report_of(FAILED).mean_reward is None

    def test_it_is_a_success_only_if_every_planned_rollout_completed(self) -> None:
        assert report_of(ended(), ended(reward=0.0)).is_success
        assert not report_of(ended(), FAILED).is_success
        assert not report_of(ended(), planned=2).is_success
        contradicted = report_of(ended())
        contradicted.contradictions = 1
        assert not contradicted.is_success

    def test_the_same_failure_is_one_problem_whatever_its_rollout_id(self) -> None:
        (problem,) = report_of(*[FAILED] * 9).problems
        assert (problem.kind, problem.text, problem.count) == ("error", "boom in <rollout id>", 9)
        assert problem.rows == list(range(MAX_ROWS_NAMED))

    def test_the_number_of_problems_is_bounded(self) -> None:
        failures = [ended(Ending.REFUSED, problem=f"number {in_letters(number)}") for number in range(MAX_PROBLEMS + 5)]
        problems = report_of(*failures).problems
        assert len(problems) == MAX_PROBLEMS + 1
        assert (problems[0].text, problems[0].count) == (OTHER_PROBLEMS, 5)

    def test_it_says_the_same_in_whatever_order_the_rollouts_ended(self) -> None:
        changed = {"messages_rewritten": ["messages[0] was changed"]}
        outcomes = [
            dataclasses.replace(ended(extra_fields=changed), rewrites=("messages[0] was changed",)),
            *(ended(Ending.ERROR, 0.0, f"boom at {number}", extra_fields={"hint": number}) for number in "123"),
            *(ended(Ending.REFUSED, problem=f"no {word}") for word in ("room", "key")),
            *(ended(Ending.TIMED_OUT, problem=f"none in {number} s") for number in range(MAX_ROWS_NAMED + 3)),
            dataclasses.replace(ended(extra_fields=changed), rewrites=("messages[1] was left out",)),
        ]
        told = set()
        for order in (1, -1):
            report = RolloutReport(planned=len(outcomes))
            for row_index in range(len(outcomes))[::order]:
                report.add(row_index, 0, outcomes[row_index])
            report.duration_ms = 2000.0
            told.add((printed(report), json.dumps(report.summary())))
        assert len(told) == 1, told
        assert report.problems[1].text == "boom at 1"
        assert [rewrite.row_index for rewrite in report.rewrites] == [0, len(outcomes) - 1]

    def test_the_summary_counts_every_way_to_end(self) -> None:
        summary = report_of(ended(), FAILED, ended(Ending.REFUSED), ended(Ending.TIMED_OUT), planned=9).summary()
        counts = {name: summary[name] for name in ("planned", "ended", "completed", "error", "refused", "timed_out")}
        assert counts == {"planned": 9, "ended": 4, "completed": 1, "error": 1, "refused": 1, "timed_out": 1}
        assert summary["rollouts_per_second"] == 2.0


class TestPrinting:
    def test_a_line_a_rollout_and_the_totals(self) -> None:
        text = printed(report_of(ended(), ended(reward=0.25, finish_reason="max_turns"), FAILED, planned=5))
        lines = [line.split() for line in text.splitlines()]
        assert ["0", "COMPLETED", "1.00", "2", "1", "250ms", "stop"] in lines
        assert ["1", "COMPLETED", "0.25", "2", "1", "250ms", "max_turns"] in lines
        assert ["2", "ERROR", "-", "2", "1", "250ms", "stop"] in lines
        assert "Rollouts: 2 of 5 completed, 1 error, 2 not finished" in text
        assert "Mean reward: 0.62 (over 2 rollouts)" in text
        assert "Time: 2.00 s, 1.5 rollouts/s" in text
        assert "1 x error: boom in <rollout id> (row 2)" in text

    def test_a_kind_of_failure_has_one_name(self) -> None:
        outcome = ended(Ending.ERROR, None, "boom", extra_fields={"outcome": "agent_error"})
        report = report_of(outcome)
        assert record_of(report.lines[0], outcome)["error_kind"] == "agent_error"
        assert report.failures == {"agent_error": 1}
        assert "1 x agent_error: boom (row 0)" in printed(report)

    @pytest.mark.parametrize("width", range(28, 80, 3))
    def test_a_narrow_terminal_gets_fewer_columns_and_each_of_them_whole(
        self, monkeypatch: pytest.MonkeyPatch, width: int
    ) -> None:
        monkeypatch.setenv("COLUMNS", str(width))
        outcomes = [dataclasses.replace(ended(reward=0.123), latency_seconds=12.3), ended(Ending.TIMED_OUT)]
        table, *_ = printed(report_of(*outcomes)).partition("Rollouts:")
        assert max(map(len, table.splitlines())) <= width
        left_out = " ".join(table.split()).partition("A wider terminal shows more: ")[2]
        row = next(line.split() for line in table.splitlines() if "COMPLETED" in line)
        assert row == ["0", "COMPLETED", "0.12", "2", "1", "12.3s", "stop"][: len(row)]
        assert len(row) + left_out.count(",") + bool(left_out) == 7

    def test_repeats_get_a_column(self) -> None:
        report = RolloutReport(planned=2)
        report.add(3, 0, ended())
        report.add(3, 1, ended())
        assert ["3", "1", "COMPLETED"] in [line.split()[:3] for line in printed(report).splitlines()]

    def test_groups_without_signal_are_named_and_a_failure_is_no_sample(self) -> None:
        report = RolloutReport(planned=9)
        for row, rewards in enumerate([(1.0, 1.0, None), (1.0, 0.0, 1.0), (0.0, 0.0, 0.0)]):
            for repeat, reward in enumerate(rewards):
                report.add(row, repeat, FAILED if reward is None else ended(reward=reward))
        assert "Groups: 3, of which 2 without signal: all samples earn the same (rows 0, 2)" in printed(report)
        assert (report.summary()["groups"], report.summary()["groups_without_signal"]) == (3, 2)
        assert "Groups" not in printed(report_of(ended(), ended()))

    def test_a_long_table_keeps_the_worst_and_says_how_many_it_leaves_out(self) -> None:
        good = [ended()] * (2 * MAX_TABLE_LINES)
        text = printed(report_of(*good, FAILED, ended(reward=0.0)))
        assert text.count("COMPLETED") == MAX_TABLE_LINES - 1
        assert [f"{2 * MAX_TABLE_LINES}", "ERROR"] in [line.split()[:2] for line in text.splitlines()]
        assert f"{MAX_TABLE_LINES + 2} more rollouts, none of them worse, are not shown." in text

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
    def test_text_from_the_wire_can_neither_drive_the_terminal_nor_break_the_stream(self, encoding: str) -> None:
        hostile = "\x1b[2J[/red]\N{SNOWMAN}\r\nnext"
        text = printed(report_of(ended(Ending.ERROR, problem=hostile, finish_reason=hostile)), encoding)
        assert "\x1b" not in text
        assert "\r" not in text
        assert "[/red]" in text

    def test_breaches_of_the_protocol_are_warned_about(self) -> None:
        report = report_of(ended())
        report.contradictions, report.late_results = 1, 2
        text = printed(report)
        assert "Warning: 1 x a terminal callback contradicted" in text
        assert "Warning: 2 x a terminal callback came after" in text
        assert "an agent changed" not in text
        assert "Rewrote" not in text

    def test_what_agents_rewrote_is_in_the_table_and_named_below_it(self) -> None:
        cleaned = dataclasses.replace(ended(), rewrites=("messages[1] was changed\x1b[2J", "and more"))
        text = printed(report_of(ended(), *[cleaned] * (MAX_REWRITES_SHOWN + 1)))
        lines = [line.split() for line in text.splitlines()]
        assert ["0", "COMPLETED", "1.00", "2", "1", "250ms", "stop", "-"] in lines
        assert ["1", "COMPLETED", "1.00", "2", "1", "250ms", "stop", "yes"] in lines
        assert f"Warning: {MAX_REWRITES_SHOWN + 1} x an agent changed or dropped what was said before:" in text
        assert "\nRow 1, rollout id-7: messages[1] was changed\n" in text
        assert text.count("rollout id-7") == MAX_REWRITES_SHOWN


class TestRecords:
    def test_a_rollout_without_a_result_has_a_record_too(self) -> None:
        outcome = ended(Ending.TIMED_OUT, problem="too slow")
        record = record_of(RolloutReport(planned=1).add(0, 0, outcome), outcome)
        assert (record["status"], record["error"], record["error_kind"], record["messages"]) == (
            "TIMED_OUT",
            "too slow",
            "timed_out",
            [],
        )

    def test_what_an_earlier_run_left_counts_and_makes_the_rate_no_better(self) -> None:
        outcome = ended(final_messages=[{"role": "user", "content": "hello"}])
        record = record_of(RolloutReport(planned=2).add(0, 0, outcome), outcome)
        assert record["messages"] == [{"role": "user", "content": "hello"}]
        report = RolloutReport(planned=2)
        report.take_earlier([record])
        report.add(1, 0, ended(reward=0.0))
        report.duration_ms = 1000.0
        assert (report.mean_reward, report.completed, report.resumed, report.rollouts_per_second) == (0.5, 2, 1, 1.0)


@pytest.mark.parametrize("columns", [None, "70"])
def test_a_status_can_be_read_beside_many_parts_of_a_reward(
    columns: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    parts = {f"part_{number}": 0.5 for number in range(4)}
    text = printed(report_of(ended(extra_fields={"outcome": "success", "reward_components": parts}), FAILED))
    assert "COMPLETED" in text.partition("Rollouts:")[0]
    assert "part_3" in text.partition("Rollouts:")[0]
