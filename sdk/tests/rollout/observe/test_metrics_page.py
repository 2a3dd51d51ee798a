"""``docs/metrics.md`` lists the metrics that there are, and its queries are about them."""

import re
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
from prometheus_client import CollectorRegistry

from osmosis_ai.rollout.observe.instruments import FINISH_REASONS, MAX_TOOLS, REFUSAL_REASONS, Instruments

PAGE = (Path(__file__).parents[4] / "docs" / "metrics.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(osmosis_\w+)` \| (\w+) \|([^|]*)\| (.*) \|$", re.MULTILINE)
ALERTS = re.findall(r"^ +expr: (.+)$", PAGE, re.MULTILINE)


def test_the_table_is_the_registry() -> None:
    registry = CollectorRegistry()
    instruments = Instruments(registry, "agent")
    documented = {
        name.removesuffix("_total"): (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels, _ in ROW.findall(PAGE)
    }
    told = {metric.name: metric.type for metric in registry.collect()}
    assert {name: kind for name, (kind, _) in documented.items()} == told
    collectors: dict[str, Any] = {names[0]: collector for collector, names in registry._collector_to_names.items()}
    labels = {name.removesuffix("_total"): set(collector._labelnames) for name, collector in collectors.items()}
    assert {name: names for name, (_, names) in documented.items()} == labels
    assert instruments.rollouts.keys() == {"queued", "running", "recording", "delivering"}


def test_every_reason_of_a_refusal_is_named() -> None:
    (meaning,) = [row[3] for row in ROW.findall(PAGE) if row[0] == "osmosis_inits_refused_total"]
    assert set(re.findall(r"`(\w+)`", meaning)) - {"code"} == set(REFUSAL_REASONS)


def test_the_bounds_are_the_documented_ones() -> None:
    assert f"at most {MAX_TOOLS} of them" in PAGE
    assert {"stop", "max_turns"} < FINISH_REASONS


@pytest.mark.parametrize("query", ALERTS)
def test_an_alert_is_about_metrics_that_there_are(query: str) -> None:
    promql.parse(query)
    names = {name for name, *_ in ROW.findall(PAGE)}
    used = set(re.findall(r"osmosis_\w+", query))
    assert used
    assert used <= names


def test_there_are_alerts() -> None:
    assert len(ALERTS) >= 5
