"""The README does what it says: its commands run as written, its links resolve, its table is the settings."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import BaseModel

from osmosis_ai.rollout import RolloutClientSettings, RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.core.schemas import InitResponse, RolloutRequest, RolloutResponse

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEADLINE_SECONDS = 50

# Read by the program before there are settings, or by the example.
OTHER_VARIABLES = {"ROLLOUT_SERVER_HOST", "ROLLOUT_SERVER_PORT", "ROLLOUT_DEBUG_DIR", "OSMOSIS_PUBLIC_HOST"}
# Part of the 0.2 surface, for a registration that is not available.
UNDOCUMENTED_FIELDS = re.compile("registration_.*")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^ *```{re.escape(language)}\n(.*?)^ *```$", README, re.DOTALL | re.MULTILINE)


def environment(tmp_path: Path) -> dict[str, str]:
    """As in a user's shell: without this test's virtual environment, and with the uv that runs it on the path."""
    variables = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    folders = [folder for folder in variables["PATH"].split(os.pathsep) if Path(folder) != Path(sys.executable).parent]
    if uv := os.environ.get("UV") or shutil.which("uv"):
        folders.insert(0, str(Path(uv).parent))
    variables["PATH"] = os.pathsep.join(folders)
    variables["OSMOSIS_ROLLOUT_SERVER_API_KEY"] = "readme-key"
    variables["OSMOSIS_ROLLOUT_SERVER_JOURNAL"] = str(tmp_path / "journal.db")
    return variables


def run(command: str, tmp_path: Path) -> str:
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def serving(command: str, tmp_path: Path) -> Iterator[str]:
    """The base URL of the server that ``command`` starts; it must end with exit code 0 on SIGTERM."""
    port = re.search(r"(?:-p|--port) (\d+)", command)
    url = f"http://127.0.0.1:{port[1] if port else 9000}"
    with (tmp_path / "output").open("w+") as output:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            cwd=ROOT,
            env=environment(tmp_path),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not is_healthy(url):
                assert process.poll() is None, Path(output.name).read_text()
                assert time.monotonic() < deadline, Path(output.name).read_text()
                time.sleep(0.05)
            yield url
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0, Path(output.name).read_text()
        finally:
            process.kill()
            process.wait()


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as response:  # noqa: S310 - loopback
            return bool(json.load(response)["agent_loop"] == "calculator")
    except OSError:
        return False


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


@pytest.mark.parametrize("command", blocks("bash")[2:])
def test_a_command_succeeds(command: str, tmp_path: Path) -> None:
    run(command, tmp_path)


@pytest.mark.parametrize("command", blocks("bash serve"))
@pytest.mark.usefixtures("no_rollout_logs")
def test_a_command_that_serves_answers_and_ends_with_exit_code_0(command: str, tmp_path: Path) -> None:
    with serving(command.strip(), tmp_path):
        pass


@pytest.mark.parametrize("command", blocks("bash with-server"))
def test_a_command_for_a_running_server_succeeds(command: str, tmp_path: Path) -> None:
    with serving("uv run python -m server", tmp_path):
        run(command, tmp_path)


def test_every_command_is_in_a_block_that_is_run() -> None:
    shown = re.findall(r"^ *```(bash[^\n]*)$", README, re.MULTILINE)

    assert set(shown) == {"bash", "bash serve", "bash with-server"}


def test_every_relative_link_resolves() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_protocol_examples_are_valid_messages() -> None:
    init, accepted, _, completed = (json.loads(block) for block in blocks("json")[:4])

    RolloutRequest.model_validate(init)
    InitResponse.model_validate(accepted)
    RolloutResponse.model_validate(completed)


def test_the_configuration_table_lists_every_setting_with_its_default() -> None:
    table = dict(re.findall(r"^\| `([A-Z_]+)` \| `?([^|`]*?)`? \|", README, re.MULTILINE))
    settings: dict[str, type[BaseModel]] = {
        "OSMOSIS_ROLLOUT_CLIENT_": RolloutClientSettings,
        "OSMOSIS_ROLLOUT_SERVER_": RolloutServerSettings,
        "OSMOSIS_ROLLOUT_": RolloutSettings,
    }
    declared = {
        prefix + name.upper(): field.default
        for prefix, model in settings.items()
        for name, field in model.model_fields.items()
        if name not in ("client", "server") and not UNDOCUMENTED_FIELDS.fullmatch(name)
    }

    assert table.keys() == declared.keys() | OTHER_VARIABLES
    numbers = {name: default for name, default in declared.items() if isinstance(default, int | float)}
    assert {name: float(table[name]) for name in numbers} == numbers


def test_every_setting_is_read_somewhere() -> None:
    source = "\n".join(
        file.read_text(encoding="utf-8") for file in (ROOT / "sdk/src").rglob("*.py") if file.name != "settings.py"
    )
    fields = {*RolloutClientSettings.model_fields, *RolloutServerSettings.model_fields, *RolloutSettings.model_fields}

    unread = {name for name in fields if not re.search(rf"\.{name}\b", source)}
    assert {name for name in unread if not name.startswith("registration_readiness_")} == set()
