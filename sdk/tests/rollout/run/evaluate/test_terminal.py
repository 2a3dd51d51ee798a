import io

import pytest
from support.evaluations import HOSTILE, evaluation

from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.run.evaluate import EvalEvalSummary, EvalResult, format_eval_report, terminal as terminal_report
from osmosis_ai.rollout.run.evaluate.records import overview


def printed(result: EvalResult, model: str = "the/model", *, terminal: bool = False) -> str:
    stream = io.StringIO()
    format_eval_report(result, Console(file=stream, force_terminal=terminal), model)
    return stream.getvalue()


def test_it_says_what_was_run_and_what_came_out() -> None:
    text = printed(evaluation([1.0, 0.0], [1.0, 1.0]))
    for line in ("Evaluation Results:", "Rows: 2", "Runs per row: 2", "Total runs: 4", "Duration: 1.2s"):
        assert line in text
    table = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if "|" in line]
    assert table[0] == ["Model", "Avg Latency", "Avg Tokens"]
    assert table[1] == ["the/model", "15ms", "100"]
    assert table[2] == ["Eval Function", "Model", "Mean", "Min", "Max", "Std", "pass@1", "pass@2"]
    assert table[3] == ["fn", "the/model", "0.750", "0.000", "1.000", "0.433", "75.0%", "100.0%"]
    assert "(standard error 0.250), pass@1 75.0% [" in text
    assert "pass^2 50.0%, majority 50.0%" in text
    assert text.endswith("\n\n")


def table_of_samples(text: str) -> list[list[str]]:
    lines = text.partition("  Samples")[2].partition("95% intervals")[0].splitlines()
    return [[cell.strip() for cell in line.split("|")] for line in lines if "|" in line]


def test_each_sample_has_its_line() -> None:
    result = evaluation([1.0, 0.0], [1.0, 1.0], error="it broke")
    result.rows[0].runs[2].error_kind = "time limit"
    result.rows[1].runs[1].finish_reason = "length"
    lines = table_of_samples(printed(result))
    assert lines[0] == ["Row", "Run", "Outcome", "Finish reason", "fn", "crash", "Tokens"]
    assert lines[1:] == [
        ["0", "0", "completed", "-", "1.000", "-", "100"],
        ["0", "1", "completed", "-", "0.000", "-", "100"],
        ["0", "8", "time limit", "-", "-", "-", "0"],
        ["0", "9", "completed", "-", "1.000", "error", "0"],
        ["1", "0", "completed", "-", "1.000", "-", "100"],
        ["1", "1", "completed", "length", "1.000", "-", "100"],
    ]


def test_of_many_samples_the_lowest_are_shown() -> None:
    text = printed(evaluation(*([share / 100] for share in range(100, 0, -1)), error="it broke"))
    assert "Samples: the 20 lowest of 102:" in text
    lines = table_of_samples(text)[1:]
    assert [line[0] for line in lines] == ["0", "0", *map(str, range(82, 100))]
    assert (lines[0][2], lines[1][5]) == ("agent", "error")


def test_the_cost_is_told_where_it_is_known() -> None:
    result = evaluation([1.0, 0.0], [1.0, 1.0])
    assert "Cost" not in printed(result)
    result.rows[0].runs[0].cost_usd = 0.25
    text = printed(result)
    assert "Cost: $0.2500 (1 of 4 runs)" in text
    assert [line[-1] for line in table_of_samples(text)] == ["Cost", "$0.2500", "-", "-", "-"]
    for row in result.rows:
        for run in row.runs:
            run.cost_usd = 0.0001
    assert "Cost: $0.0004\n" in printed(result)
    assert overview(result)["summary"]["cost_usd"] == pytest.approx(0.0004)


def test_pass_at_k_is_not_shown_with_one_run_a_row() -> None:
    assert "pass@" not in printed(evaluation([1.0], [0.0]))


def test_models_of_the_same_name_are_told_apart_and_compared() -> None:
    text = printed(evaluation([1.0], [1.0], [0.0], baseline=[[0.0], [1.0], [0.0]]))
    assert "same/model (primary)" in text
    assert "same/model (baseline)" in text
    assert "fn: primary minus baseline +0.333, 95% interval [" in text
    assert "(1 better, 2 equal, 0 worse)" in text


def test_failures_are_counted_with_the_first_error_and_no_zero_stands_for_them() -> None:
    text = printed(evaluation([1.0], error="it broke"))
    assert "Failed runs (agent): 1.\n" in text
    assert "1 x agent: it broke (row 0)" in text
    assert "Runs on which crash failed: 1.\n" in text
    assert "1 x crash: it broke (row 0)" in text
    [line] = [line for line in text.splitlines() if line.strip().startswith("crash ")]
    assert [cell.strip() for cell in line.split("|")][2:] == ["N/A"] * 4


def test_a_function_that_never_scored_has_no_mean() -> None:
    result = evaluation([1.0])
    result.eval_summaries["fn"] = EvalEvalSummary(errors=1, first_error="it broke")
    assert "| N/A |" in printed(result)


def test_an_early_stop_is_told_with_its_reason() -> None:
    result = evaluation([1.0])
    result.stopped_early, result.stop_reason = True, "key refused"
    assert "Stopped early: key refused" in printed(result)


def test_without_summaries_there_is_nothing_to_show() -> None:
    text = printed(EvalResult([], {}, 0, 0, 0, 0.0, 1, 1.0))
    assert "No results" in text
    assert "|" not in text


@pytest.mark.parametrize("terminal", [True, False])
def test_foreign_text_is_text(terminal: bool) -> None:
    text = printed(evaluation([1.0, 0.0], error=HOSTILE), HOSTILE, terminal=terminal)
    assert "[/x]" in text
    assert "\x1b]0;" not in text
    assert terminal or "\x1b" not in text


def test_a_terminal_gets_boxes_and_whole_scores() -> None:
    text = printed(evaluation([1.0, 1.0]), terminal=True)
    assert "╭" in text
    assert "1.000" not in text.partition("95% intervals")[0]


def test_where_rich_cannot_render_the_plain_tables_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*arguments: object) -> None:
        raise ImportError("rich")

    monkeypatch.setattr(terminal_report, "_format_tables_rich", unavailable)
    text = printed(evaluation([1.0, 1.0]), terminal=True)
    assert "Eval Function | Model" in text
    assert "-+-" in text
