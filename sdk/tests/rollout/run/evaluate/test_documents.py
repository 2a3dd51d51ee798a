import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from support.evaluations import HOSTILE, evaluation

from osmosis_ai.rollout.run.evaluate import EvalResult
from osmosis_ai.rollout.run.evaluate.documents import markdown_report, render
from osmosis_ai.rollout.run.evaluate.html_report import html_report
from osmosis_ai.rollout.run.evaluate.plots import Estimate, Series, histogram, intervals
from osmosis_ai.rollout.run.evaluate.records import samples
from osmosis_ai.rollout.run.evaluate.statistics import Interval
from osmosis_ai.rollout.run.evaluate.summary import summarize

ROWS = {number: {"user_prompt": f"What is {number} + 1?", "ground_truth": number + 1} for number in range(3)}
CONFIG: dict[str, Any] = {"model": "the/model", "seed": 3, "note": HOSTILE}


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, list[str | None]] = {}
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_holds_plots_and_tables() -> None:
    page = Page(html_report(evaluation([1.0, 0.0], [1.0, 1.0], [0.0, 0.0]), CONFIG, ROWS))
    assert page.tags.count("figure") == 4
    assert page.tags.count("table") == 6
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not {"src", "onload", "style"} & set(page.attributes)
    assert all(str(target).startswith("#") for target in page.attributes["href"])
    for part in (
        "Scores, fn",
        "pass@k, fn",
        "Latency of a run",
        "Tokens of a run",
        "Lowest rows",
        "Samples",
        "How it was made",
    ):
        assert part in page.text


def test_a_comparison_has_its_table_and_two_colours() -> None:
    page = Page(html_report(evaluation([1.0], [0.0], baseline=[[0.0], [0.0]]), CONFIG, ROWS))
    assert "Primary minus baseline, paired by row" in page.text
    assert {"first", "second"} <= set(page.attributes["class"])


def test_the_lowest_rows_link_to_their_prompt_truth_and_answers() -> None:
    result = evaluation([1.0, 0.0], [1.0, 1.0])
    result.rows[0].runs[1].answer = "I say 7 \ud800" + "x" * 9_000
    result.rows[1].runs[0].answer = "It is 2"
    page = Page(html_report(result, CONFIG, {0: {"user_prompt": HOSTILE, "ground_truth": [7]}, 1: ROWS[1]}))
    assert {"#row-0", "#row-1"} <= set(page.attributes["href"])
    assert {"row-0", "row-1"} <= set(page.attributes["id"])
    assert {str(target)[1:] for target in page.attributes["href"]} <= set(page.attributes["id"])
    whole = page.text.partition("Lowest rows, whole")[2].partition("Row 0")[2].partition("Row 1")
    for part in (
        "script>alert(1)",
        "[7]",
        "Run 1: completed, fn 0.000",
        "I say 7 \\ud800",
        "5,009 characters left out",
    ):
        assert part in whole[0], part
    assert "What is 1 + 1?" in whole[2]
    assert "It is 2" in whole[2]


def test_a_low_row_shows_the_lowest_run_that_answered_and_how_many_failed() -> None:
    result = evaluation([1.0, 0.5, 0.0], [1.0, 1.0, 1.0], error="it broke")
    for number, run in enumerate(result.rows[0].runs[:3]):
        run.answer = f"answer {number}"
    lowest = markdown_report(result, CONFIG, ROWS).partition("## Lowest rows")[2].partition("##")[0]
    line = next(line for line in lowest.splitlines() if line.startswith("| 0 |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[4:6] == ["answer 2", "1 of 5 runs failed: it broke"]


def cells_of(markdown: str, title: str) -> list[list[str]]:
    """The lines of the table of this title, but its headers."""
    lines = markdown.partition(f"## {title}\n")[2].partition("\n##")[0].split("\n|")[3:]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def failing(*errors: Sequence[str | None]) -> EvalResult:
    """A list a row: what each of its runs failed with, of the policy; ``None`` has ended."""
    result = evaluation(*([1.0] * len(row) for row in errors))
    for row, row_errors in zip(result.rows, errors, strict=True):
        for run, error in zip(row.runs, row_errors, strict=True):
            if error is not None:
                run.success, run.scores, run.error, run.error_kind = False, {}, error, "policy"
    return result


def test_each_cause_of_failures_has_its_line() -> None:
    result = failing(["HTTP 503: busy 1", None], ["KeyError: 'answer'"] * 2, ["HTTP 429: later", "HTTP 503: busy 2"])
    for run in result.rows[0].runs:
        run.eval_errors = {"fn": f"it broke at {run.run_index}"}
    result.rows[0].runs[0].eval_errors = {}
    assert cells_of(markdown_report(result, CONFIG, ROWS), "Failures") == [
        ["policy", "the/model", "HTTP 503: busy 1", "0, 2", "2"],
        ["policy", "the/model", "KeyError: 'answer'", "1", "2"],
        ["fn", "the/model", "it broke at 1", "0", "1"],
        ["policy", "the/model", "HTTP 429: later", "2", "1"],
    ]
    page = Page(html_report(result, CONFIG, ROWS))
    assert "KeyError: 'answer'" in page.text.partition("Failures")[2].partition("Latency")[0]


def test_of_many_kinds_of_failures_the_most_frequent_are_listed() -> None:
    kinds = [f"{first}{second} broke" for first in "abcdef" for second in "ghijk"]
    markdown = markdown_report(failing(kinds, ["fk broke"] * 2), CONFIG, ROWS)
    lines = cells_of(markdown, "Failures: the 20 most frequent of 30 kinds")
    assert len(lines) == 20
    assert lines[0][2:] == ["fk broke", "0, 1", "3"]


def test_rows_that_failed_wholly_come_first_and_their_numbers_are_links() -> None:
    result = failing([None, None], ["KeyError: 'answer'"] * 2, [None, None])
    result.rows[2].runs[0].scores["fn"] = 0.0
    lines = cells_of(markdown_report(result, CONFIG, ROWS), "Lowest rows")
    assert [line[0] for line in lines] == ["1", "2", "0"]
    assert lines[0][5:] == ["2 of 2 runs failed: KeyError: 'answer'", "-"]
    source = html_report(result, CONFIG, ROWS)
    assert '<a href="#row-1">1</a>' in source.partition("<caption>Samples")[2]
    assert (
        "KeyError" in Page(source).text.partition("Lowest rows, whole")[2].partition("Row 1")[2].partition("Row 2")[0]
    )


def test_rows_that_failed_leave_room_for_those_that_scored_lowest() -> None:
    result = failing(*([["HTTP 503"]] * 30), *([[None]] * 30))
    for row in result.rows[30:40]:
        row.runs[0].scores["fn"] = 0.0
    rows = [int(line[0]) for line in cells_of(markdown_report(result, CONFIG, {}), "Lowest rows")]
    assert rows == [*range(10), *range(30, 40)]
    as_good = failing(*([["HTTP 503"]] * 3), *([[None]] * 3))
    assert [line[0] for line in cells_of(markdown_report(as_good, CONFIG, {}), "Lowest rows")] == ["0", "1", "2"]


def test_a_long_answer_keeps_its_end() -> None:
    result = evaluation([0.0], [1.0])
    result.rows[0].runs[0].answer = "Let me think. " * 100 + "#### 4217"
    for report in (markdown_report(result, CONFIG, ROWS), Page(html_report(result, CONFIG, ROWS)).text):
        table = report.partition("Lowest rows")[2].partition("Samples")[0].replace("\\", "")
        assert "Let me think" in table
        assert "…" in table
        assert "#### 4217" in table


def test_a_run_that_answered_and_failed_has_both() -> None:
    result = failing(["it broke"], [None])
    result.rows[0].runs[0].answer = "I say 7"
    whole = Page(html_report(result, CONFIG, ROWS)).text.partition("Lowest rows, whole")[2]
    assert "I say 7\n\nit broke" in whole


def test_the_parts_of_scores_have_a_table_and_stand_beside_each_run() -> None:
    result = evaluation([1.0], [0.0])
    for number, row in enumerate(result.rows):
        row.runs[0].components = {"fn": {"format": 1.0 - number, HOSTILE: 0.5}}
    result.eval_summaries["fn"] = summarize("fn", result.rows, 1, 1.0)
    lines = cells_of(markdown_report(result, CONFIG, ROWS), "Parts of the scores")
    assert lines[0] == ["fn", "the/model", "format", "0.500", "0.500", "0.000", "1.000", "2"]
    page = Page(html_report(result, CONFIG, ROWS))
    assert "Parts of the scores" in page.text
    assert "Run 0: completed, fn 0.000 (format 0.000, " in page.text
    assert "script" not in page.tags
    assert "Parts of the scores" not in markdown_report(evaluation([1.0]), CONFIG, ROWS)


def test_a_pass_at_k_over_fewer_rows_says_so() -> None:
    result = evaluation([1.0, 0.0, 0.0], [1.0, 1.0], [0.0, 0.0, 0.0])
    told = "fn: pass@3 over 2 of 3 rows, those with k scored runs"
    page = Page(html_report(result, CONFIG, ROWS))
    assert told in page.text
    assert "pass@3, 2 rows" in page.text
    assert "pass@2, " not in page.text
    assert told in markdown_report(result, CONFIG, ROWS).replace("\\", "")
    assert "scored runs; with other" not in markdown_report(evaluation([1.0, 0.0], [1.0, 1.0]), CONFIG, ROWS)


def test_a_run_that_failed_has_an_answer_too() -> None:
    runs = samples(evaluation([1.0], error="it broke"))[0]["runs"]
    assert [run["success"] for run in runs] == [True, False, True]
    assert [run["answer"] for run in runs] == [None, None, None]


def test_the_page_has_landmarks_and_every_table_a_name() -> None:
    page = Page(html_report(evaluation([1.0, 0.0], [1.0, 1.0]), CONFIG, ROWS))
    assert [page.tags.count(tag) for tag in ("header", "nav", "main", "h1")] == [1, 1, 1, 1]
    assert page.tags.count("caption") == page.tags.count("table") == page.attributes["role"].count("region")
    assert set(page.attributes["scope"]) == {"col"}
    assert {str(name) for name in page.attributes["aria-labelledby"]} <= set(page.attributes["id"])


def test_foreign_text_is_no_markup() -> None:
    result = evaluation([1.0, 0.0], error=HOSTILE)
    page = Page(html_report(result, CONFIG | {"model": HOSTILE}, ROWS))
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in page.text
    markdown = markdown_report(result, CONFIG | {"model": HOSTILE}, ROWS)
    assert "<script>" not in markdown.partition("## How it was made")[0].replace("\\<script\\>", "")
    assert "\x1b" not in markdown
    tables = [line for line in markdown.splitlines() if line.startswith("| ")]
    widths = {line.replace("\\|", "").count("|") for line in tables if "Failed" not in line}
    assert len(tables) > 4
    assert widths <= {5, 6, 8, 10, 14}, "a bar in a cell would make a column"


def test_markdown_has_every_table_and_the_way_to_make_it_again() -> None:
    markdown = markdown_report(evaluation([1.0, 0.0], [1.0, 1.0]), CONFIG, ROWS)
    for heading in ("# Evaluation report", "## Scores", "## Latency of a run", "## How to read this"):
        assert heading in markdown
    made = markdown.partition("## How it was made")[2]
    assert json.loads(made) == CONFIG
    assert "| fn | the/model | 0.750 |" in markdown


def test_each_k_has_a_line_with_the_rows_that_it_is_taken_over() -> None:
    markdown = markdown_report(evaluation([1.0, 0.0, 0.0], [1.0, 1.0], [0.0, 0.0, 0.0]), CONFIG, ROWS)
    lines = [line for line in markdown.partition("## pass@k and pass^k")[2].partition("##")[0].splitlines() if line]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [(*line[2:5], line[6]) for line in cells] == [
        ("1", "3", "44.4%", "44.4%"),
        ("2", "3", "55.6%", "33.3%"),
        ("3", "2", "50.0%", "0.0%"),
    ]


def test_an_early_stop_is_told() -> None:
    result = evaluation([1.0])
    result.stopped_early, result.stop_reason = True, "key refused"
    assert "Stopped early: key refused" in html_report(result, CONFIG, ROWS)
    assert "**Stopped early: key refused**" in markdown_report(result, CONFIG, ROWS)


@pytest.mark.parametrize(("name", "start"), [("r.html", "<!DOCTYPE"), ("r.HTM", "<!DOCTYPE"), ("r.md", "# Eval")])
def test_the_suffix_says_the_format(name: str, start: str) -> None:
    assert render(Path(name), evaluation([1.0]), CONFIG, ROWS).startswith(start)


class TestPlots:
    def test_they_are_well_formed_whatever_the_names(self) -> None:
        plots = [
            histogram(HOSTILE, [Series(HOSTILE, [0.0, 0.5, 1.0]), Series("b", [0.5])], HOSTILE),
            histogram("one value", [Series("a", [3.0, 3.0])]),
            intervals(HOSTILE, [Estimate(HOSTILE, 0.5, Interval(0.2, 0.8)), Estimate("none", 1.0, None)]),
        ]
        for plot in plots:
            assert ElementTree.fromstring(plot).tag == "figure"  # noqa: S314 - made here

    def test_the_highest_bar_is_the_most_frequent_score(self) -> None:
        plot = ElementTree.fromstring(histogram("t", [Series("a", [0.0, 1.0, 1.0, 1.0])]))  # noqa: S314 - made here
        bars = [float(bar.get("height", 0)) for bar in plot.iter() if bar.tag.endswith("rect")]
        assert bars[-1] == max(bars) == pytest.approx(3 * bars[0], abs=0.5)

    @pytest.mark.parametrize(
        ("values", "ends"),
        [
            ([108, 51_250], ("108", "51,250")),
            ([2.587, 6003.4], ("2.587", "6,003")),
            ([-0.25, 1e100], ("-0.25", "1e+100")),
            ([-41_000.0], ("-41,000",)),
        ],
    )
    def test_the_ends_of_an_axis_read_as_the_tables_do(self, values: list[float], ends: tuple[str, ...]) -> None:
        plot = ElementTree.fromstring(histogram("t", [Series("a", values)]))  # noqa: S314 - made here
        assert tuple(end.text for end in plot.iterfind("p/span")) == ends

    def test_an_interval_is_drawn_to_scale(self) -> None:
        plot = ElementTree.fromstring(intervals("t", [Estimate("a", 0.5, Interval(0.25, 0.75))]))  # noqa: S314 - made here
        rail, bounds = [line for line in plot.iter() if line.tag.endswith("line")]
        whole = float(rail.get("x2", 0)) - float(rail.get("x1", 0))
        assert float(bounds.get("x2", 0)) - float(bounds.get("x1", 0)) == pytest.approx(whole / 2, abs=0.2)

    def test_a_long_name_is_whole(self) -> None:
        name = "a-model-with-a-name-that-was-cut-before-v1.2-2026-11-27"
        assert name in "".join(
            ElementTree.fromstring(intervals("t", [Estimate(name, 0.5, None)])).itertext()  # noqa: S314 - made here
        )

    def test_nothing_gives_nothing(self) -> None:
        assert (histogram("t", [Series("a", [])]), intervals("t", [])) == ("", "")
