import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from support.evaluations import HOSTILE, evaluation

from osmosis_ai.rollout.run.evaluate.documents import html_report, markdown_report, render
from osmosis_ai.rollout.run.evaluate.plots import Estimate, Series, histogram, intervals
from osmosis_ai.rollout.run.evaluate.statistics import Interval

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
    page = Page(html_report(evaluation([1.0, 0.0], [1.0, 1.0], [0.0, 0.0]), CONFIG))
    assert page.tags.count("svg") == 4
    assert page.tags.count("table") == 5
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not {"src", "href", "onload"} & set(page.attributes)
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
    page = Page(html_report(evaluation([1.0], [0.0], baseline=[[0.0], [0.0]]), CONFIG))
    assert "Primary minus baseline, paired by row" in page.text
    assert len(set(page.attributes["fill"])) == 2


def test_foreign_text_is_no_markup() -> None:
    result = evaluation([1.0, 0.0], error=HOSTILE)
    page = Page(html_report(result, CONFIG | {"model": HOSTILE}))
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in page.text
    markdown = markdown_report(result, CONFIG | {"model": HOSTILE})
    assert "<script>" not in markdown.partition("## How it was made")[0].replace("\\<script\\>", "")
    assert "\x1b" not in markdown
    tables = [line for line in markdown.splitlines() if line.startswith("| ")]
    widths = {line.replace("\\|", "").count("|") for line in tables if "Failed" not in line}
    assert len(tables) > 4
    assert widths <= {5, 8, 10, 17}, "a bar in a cell would make a column"


def test_markdown_has_every_table_and_the_way_to_make_it_again() -> None:
    markdown = markdown_report(evaluation([1.0, 0.0], [1.0, 1.0]), CONFIG)
    for heading in ("# Evaluation report", "## Scores", "## Latency of a run", "## How to read this"):
        assert heading in markdown
    made = markdown.partition("## How it was made")[2]
    assert json.loads(made) == CONFIG
    assert "| fn | the/model | 0.750 |" in markdown


def test_an_early_stop_is_told() -> None:
    result = evaluation([1.0])
    result.stopped_early, result.stop_reason = True, "key refused"
    assert "Stopped early: key refused" in html_report(result, CONFIG)
    assert "**Stopped early: key refused**" in markdown_report(result, CONFIG)


@pytest.mark.parametrize(("name", "start"), [("r.html", "<!DOCTYPE"), ("r.HTM", "<!DOCTYPE"), ("r.md", "# Eval")])
def test_the_suffix_says_the_format(name: str, start: str) -> None:
    assert render(Path(name), evaluation([1.0]), CONFIG).startswith(start)


class TestPlots:
    def test_they_are_well_formed_whatever_the_names(self) -> None:
        plots = [
            histogram(HOSTILE, [Series(HOSTILE, [0.0, 0.5, 1.0]), Series("b", [0.5])], HOSTILE),
            histogram("one value", [Series("a", [3.0, 3.0])]),
            intervals(HOSTILE, [Estimate(HOSTILE, 0.5, Interval(0.2, 0.8)), Estimate("none", 1.0, None)]),
        ]
        for plot in plots:
            assert ElementTree.fromstring(plot).tag.endswith("svg")  # noqa: S314 - made here

    def test_the_highest_bar_is_the_most_frequent_score(self) -> None:
        svg = ElementTree.fromstring(histogram("t", [Series("a", [0.0, 1.0, 1.0, 1.0])]))  # noqa: S314 - made here
        bars = [float(bar.get("height", 0)) for bar in svg.iter() if bar.tag.endswith("rect")]
        assert bars[-1] == max(bars) == pytest.approx(3 * bars[0], abs=0.5)

    def test_an_interval_is_drawn_to_scale(self) -> None:
        svg = ElementTree.fromstring(intervals("t", [Estimate("a", 0.5, Interval(0.25, 0.75))]))  # noqa: S314
        rail, bounds = [line for line in svg.iter() if line.tag.endswith("line")]
        whole = float(rail.get("x2", 0)) - float(rail.get("x1", 0))
        assert float(bounds.get("x2", 0)) - float(bounds.get("x1", 0)) == pytest.approx(whole / 2, abs=0.2)

    def test_nothing_gives_nothing(self) -> None:
        assert (histogram("t", [Series("a", [])]), intervals("t", [])) == ("", "")
