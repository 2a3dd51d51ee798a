"""The Grafana dashboard asks for what a real server tells, in queries that Prometheus understands."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
from support.fake_trainer import FakeTrainer
from support.measured_server import measured_server
from support.rollouts import init_body
from support.scrapes import Scrape

DASHBOARD = json.loads((Path(__file__).parents[4] / "docs" / "grafana-dashboard.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES: list[str] = [target["expr"] for panel in PANELS for target in panel["targets"]]
OF_PROMETHEUS = {"job", "instance"}
"""Labels that Prometheus itself adds to what it scrapes."""


def parsed(query: str) -> Any:
    return promql.parse(query.replace("$__rate_interval", "1m"))


def nodes(expression: Any) -> Iterator[Any]:
    """The expression and all its parts."""
    yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector"):
        if (part := getattr(expression, name, None)) is not None:
            yield from nodes(part)
    for part in getattr(expression, "args", ()):
        yield from nodes(part)


def selectors(expression: Any) -> list[Any]:
    return [node for node in nodes(expression) if isinstance(node, promql.VectorSelector)]


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    """What a server tells after one rollout with tools."""
    with (
        FakeTrainer() as trainer,
        measured_server(tmp_path_factory.mktemp("server")) as server,
    ):
        server.wait_until_serving()
        server.init(init_body("r", server_url=trainer.url, metadata={"tools": ["add", "fail"]}))
        trainer.wait_for_result("r")
        return Scrape(server.get("/metrics").text)


@pytest.mark.parametrize("query", QUERIES)
def test_every_metric_and_label_in_a_query_exists(query: str, scrape: Scrape) -> None:
    expression = parsed(query)
    found = selectors(expression)
    assert found
    labels: set[str] = set()
    for selector in found:
        assert selector.name in scrape.samples, f"{selector.name} is not told"
        known = scrape.samples[selector.name]
        labels |= known
        for matcher in selector.matchers.matchers:
            assert matcher.name in known | OF_PROMETHEUS, f"{selector.name} has no label {matcher.name}"
            if matcher.name not in OF_PROMETHEUS:
                assert matcher.value in scrape.values(matcher.name), f"{matcher.name} is never {matcher.value}"
    for node in nodes(expression):
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= labels | OF_PROMETHEUS


def test_every_selector_heeds_the_chosen_job_and_instance() -> None:
    for selector in (selector for query in QUERIES for selector in selectors(parsed(query))):
        chosen = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
        assert (chosen["job"], chosen["instance"]) == ("$job", "$instance"), str(selector)


def test_counters_are_read_as_rates_and_gauges_are_not() -> None:
    grows = re.compile(r".*_(total|bucket|count|sum)$")
    for query in QUERIES:
        expression = parsed(query)
        for node in nodes(expression):
            if isinstance(node, promql.Call) and node.func.name in ("rate", "increase"):
                assert grows.match(node.args[0].vector_selector.name), query
        direct = {selector.name for selector in selectors(expression)} - {
            node.vector_selector.name for node in nodes(expression) if isinstance(node, promql.MatrixSelector)
        }
        assert not {name for name in direct if grows.match(name)}, query


def test_quantiles_are_of_buckets_by_le() -> None:
    for query in QUERIES:
        for node in nodes(parsed(query)):
            if isinstance(node, promql.Call) and node.func.name == "histogram_quantile":
                assert "le" in node.args[1].modifier.labels
                assert all(selector.name.endswith("_bucket") for selector in selectors(node))


def test_legends_name_labels_that_are_there() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            by = {
                label
                for node in nodes(parsed(target["expr"]))
                if isinstance(node, promql.AggregateExpr) and node.modifier is not None
                for label in node.modifier.labels
            }
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= by


def test_every_metric_of_ours_is_shown_somewhere(scrape: Scrape) -> None:
    shown = {selector.name for query in QUERIES for selector in selectors(parsed(query))}
    families = {family.name for family in scrape.families if family.name.startswith("osmosis_")}
    families = {name for name in families if not name.endswith("_created")}
    ends = ("", "_total", "_bucket", "_count", "_sum")
    assert not {name for name in families if not shown & {name + end for end in ends}}


def test_it_can_be_imported() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["uid"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "job", "instance"}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs))


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
