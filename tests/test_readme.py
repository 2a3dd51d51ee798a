"""The README does what it says: its commands run as written, its links resolve; the page of settings has them all."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from osmosis_ai.rollout import RolloutClientSettings, RolloutJudgeSettings, RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.tooling.doctor.configuration import known_variables
from tests.commands import ROOT, run, serving

README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
MAX_WORDS = 1000

# Part of the 0.2 surface, for a registration that is not available; and all settings of a kind in one JSON.
UNDOCUMENTED = re.compile("OSMOSIS_ROLLOUT_(SERVER_REGISTRATION_.*|SERVER|CLIENT|JUDGE)")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^ *```{re.escape(language)}\n(.*?)^ *```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def no_rollout_logs() -> Iterator[None]:
    logs = ROOT / "rollout_logs"
    existed = logs.exists()
    yield
    if not existed:
        shutil.rmtree(logs, ignore_errors=True)


def test_the_first_command_runs_every_row_and_earns_every_reward(tmp_path: Path) -> None:
    first = blocks("bash")[0]

    assert "Mean reward: 1.00" in run(first, tmp_path)


def test_the_test_command_is_what_the_gate_runs() -> None:
    assert blocks("bash")[1].strip() in (ROOT / ".ci/run").read_text().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("command", blocks("bash")[2:])
def test_a_command_succeeds(command: str, tmp_path: Path) -> None:
    run(command, tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=[pytest.mark.slow] if place else [])
        for place, command in enumerate(blocks("bash serve"))
    ],
)
@pytest.mark.usefixtures("no_rollout_logs")
def test_a_command_that_serves_answers_and_ends_with_exit_code_0(command: str, tmp_path: Path) -> None:
    with serving(command, tmp_path):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("command", blocks("bash with-server"))
def test_a_command_for_a_running_server_succeeds(command: str, tmp_path: Path) -> None:
    with serving("uv run python -m server", tmp_path) as port:
        run(command, tmp_path, port)


@pytest.mark.slow
@pytest.mark.parametrize("command", blocks("bash doctor"))
def test_the_doctor_comes_to_a_result(command: str, tmp_path: Path) -> None:
    # What it finds is this machine's: others may have the port.
    output = run(f"{command.strip()} || test $? = 1", tmp_path)

    assert re.search(r"^\d+ problems?, \d+ warnings?, \d+ ok", output, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("command", blocks("bash new-project"))
def test_a_new_project_passes_its_tests(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In this environment: without a network, nothing could be installed into one of its own.
    monkeypatch.setenv("UV_NO_SYNC", "1")
    monkeypatch.setenv("UV_PROJECT_ENVIRONMENT", sys.prefix)
    output = run(command.replace("../my-agent", "/tmp/my-agent"), tmp_path)  # noqa: S108 - which is in tmp_path then

    assert re.search(r"\d+ passed", output)
    assert (tmp_path / "my-agent" / "server.py").exists()


def test_every_command_is_in_a_block_that_is_run() -> None:
    shown = re.findall(r"^ *```(bash[^\n]*)$", README, re.MULTILINE)
    assert set(shown) == {"bash", "bash serve", "bash with-server", "bash doctor", "bash new-project"}


def test_it_is_read_in_five_minutes() -> None:
    assert len(README.split()) <= MAX_WORDS


def test_the_page_of_settings_lists_every_setting_with_its_default() -> None:
    table = dict(re.findall(r"^\| `([A-Z_]+)` \| `?([^|`]*?)`? \|", SETTINGS, re.MULTILINE))
    settings: dict[str, type[BaseModel]] = {
        "OSMOSIS_ROLLOUT_CLIENT_": RolloutClientSettings,
        "OSMOSIS_ROLLOUT_SERVER_": RolloutServerSettings,
        "OSMOSIS_ROLLOUT_JUDGE_": RolloutJudgeSettings,
        "OSMOSIS_ROLLOUT_": RolloutSettings,
    }
    declared = {
        prefix + name.upper(): field.default
        for prefix, model in settings.items()
        for name, field in model.model_fields.items()
        if name not in ("client", "server", "judge")
    }

    assert table.keys() == {name for name in known_variables() if not UNDOCUMENTED.fullmatch(name)}
    numbers = {name: value for name, value in declared.items() if name in table and isinstance(value, int | float)}
    assert {name: float(table[name]) for name in numbers} == numbers
