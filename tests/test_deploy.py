"""What lies in `deploy/` fits the server: its paths, its settings, its metrics, its times. No secret is in it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from osmosis_ai.rollout.core.settings import RolloutServerSettings
from osmosis_ai.rollout.journal.place import secret_of, shown
from server import app
from tests.commands import ROOT

DEPLOY = ROOT / "deploy"
MANIFESTS: dict[str, Any] = {
    manifest["kind"]: manifest
    for path in (DEPLOY / "kubernetes").glob("*.yaml")
    for manifest in yaml.safe_load_all(path.read_text("utf-8"))
}
POD = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
UNIT = (DEPLOY / "rollout-server.service").read_text("utf-8")


def seconds_to_end() -> float:
    settings = RolloutServerSettings.model_construct()
    return settings.drain_seconds + settings.flush_seconds


def test_there_is_all_that_replicas_need() -> None:
    assert MANIFESTS.keys() == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert MANIFESTS["Service"]["spec"]["selector"] == labels
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "rollout-server"


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_a_probe_asks_for_a_path_that_the_server_has(probe: str) -> None:
    paths = {getattr(route, "path", None) for route in app.routes}
    assert CONTAINER[probe]["httpGet"]["path"] in paths
    assert CONTAINER[probe]["httpGet"]["port"] in {port["name"] for port in CONTAINER["ports"]}


def test_every_setting_exists_and_every_secret_is_a_reference() -> None:
    known = {f"OSMOSIS_ROLLOUT_SERVER_{name.upper()}" for name in RolloutServerSettings.model_fields}
    for variable in CONTAINER["env"]:
        name = variable["name"]
        assert name in known | {"PGPASSWORD"}
        assert ("valueFrom" in variable) == bool(re.search("KEY|PASSWORD", name)), name
    [journal] = [variable["value"] for variable in CONTAINER["env"] if variable["name"].endswith("_JOURNAL")]
    assert secret_of(journal) is None
    assert "postgres" in shown(journal)
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            assert set(re.findall(r"OSMOSIS_ROLLOUT_SERVER_\w+", path.read_text("utf-8"))) <= known, path


def test_who_ends_it_waits_long_enough() -> None:
    pause = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] >= pause + seconds_to_end() + 5
    [stop] = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert int(stop) >= seconds_to_end() + 5


def test_the_autoscaler_reads_a_metric_that_there_is() -> None:
    [metric] = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    told = (ROOT / "docs/metrics.md").read_text("utf-8")
    name = metric["external"]["metric"]["name"]
    assert any(line.startswith(f"| `{name}` ") for line in told.splitlines())
    assert f"`max({name})`" in (ROOT / "docs/many-machines.md").read_text("utf-8"), "one answer to what to scale by"
    slots = RolloutServerSettings().max_concurrent_rollouts
    assert 0 < int(metric["external"]["target"]["averageValue"]) <= slots


def test_the_image_copies_and_starts_what_there_is() -> None:
    text = (DEPLOY / "Containerfile").read_text("utf-8")
    assert '"server:agent_loop"' in text
    assert "USER 10001" in text
    assert POD["securityContext"]["runAsUser"] == 10001
    assert re.search(r"COPY \. \.\n", text)


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    systemd_analyze = shutil.which("systemd-analyze")
    if systemd_analyze is None:
        pytest.skip("systemd-analyze is not installed.")
    osmosis = Path(sys.executable).with_name("osmosis")
    (tmp_path / "rollout-server.service").write_text(UNIT.replace("/opt/agent/.venv/bin/osmosis", str(osmosis)))
    done = subprocess.run(
        [systemd_analyze, "verify", str(tmp_path / "rollout-server.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if "rollout-server" in line]) == (0, [])


def test_ray_imports_an_application_without_ray() -> None:
    code = compile((DEPLOY / "ray_serve.py").read_text("utf-8"), "ray_serve.py", "exec")
    assert {"build", "RolloutServer", "app"} <= set(code.co_names)
