"""The pytest plugin: each check is a test, and only a project that asks for it has it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rollout_conformance import all_checks
from rollout_conformance.options import SERVER_KEY_VARIABLE

pytestmark = pytest.mark.slow

DEADLINE_SECONDS = 150
OF_INIT = sum(check.id.startswith("init.") for check in all_checks())
PLUGIN = ("-p", "rollout_conformance.pytest")


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    own = "import sys\n\ndef test_own():\n    print(sorted(name for name in sys.modules if 'conformance' in name))\n"
    (folder / "test_own.py").write_text(own)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "-p",
            "no:langsmith_plugin",
            "-q",
            "-rA",
            *arguments,
        ],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != SERVER_KEY_VARIABLE},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def test_each_check_is_a_test(server: str, tmp_path: Path) -> None:
    given = (*PLUGIN, "--osmosis-server", server, "--osmosis-api-key", "secret")
    done = pytest_in(tmp_path, *given, "--osmosis-only", "init")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{OF_INIT + 1} passed" in done.stdout  # one is the project's own
    chosen = pytest_in(tmp_path, *given, "-m", "osmosis_conformance", "-k", "init.nulls or init.tools")
    assert "2 passed" in chosen.stdout, chosen.stdout + chosen.stderr


def test_a_project_may_name_it_in_its_conftest(server: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["rollout_conformance.pytest"]\n')
    given = ("--osmosis-server", server, "--osmosis-api-key", "secret", "--osmosis-only", "init.nulls")
    done = pytest_in(tmp_path, *given)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_a_failure_is_the_reason_and_no_traceback(broken: str, tmp_path: Path) -> None:
    chosen = ("--osmosis-only", "init", "--osmosis-only", "auth.first")
    done = pytest_in(tmp_path, *PLUGIN, "--osmosis-server", broken, *chosen)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "requires 'c'" in done.stdout
    assert "Traceback" not in done.stdout
    assert f"1 failed, {OF_INIT} passed, 1 skipped" in done.stdout


def test_what_a_baseline_expects_is_an_expected_failure_of_pytest(broken: str, tmp_path: Path) -> None:
    (tmp_path / "baseline").write_text("init.tools\n")
    given = ("--osmosis-server", broken, "--osmosis-only", "init", "--osmosis-baseline", "baseline")
    done = pytest_in(tmp_path, *PLUGIN, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{OF_INIT} passed, 1 xfailed" in done.stdout


def test_a_server_that_is_not_there_fails_each_test(tmp_path: Path) -> None:
    done = pytest_in(tmp_path, *PLUGIN, "--osmosis-server", "http://127.0.0.1:1", "--osmosis-only", "init.tools")
    assert done.returncode == 1
    assert "does not answer" in done.stdout


def test_a_choice_of_nothing_names_the_options_of_pytest(tmp_path: Path) -> None:
    done = pytest_in(tmp_path, *PLUGIN, "--osmosis-server", "http://127.0.0.1:1", "--osmosis-only", "nope")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "There is no check 'nope'" in done.stderr


def test_without_a_server_it_adds_nothing_and_brings_no_http_client(tmp_path: Path) -> None:
    done = pytest_in(tmp_path, *PLUGIN)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert "rollout_conformance.judge" not in done.stdout


def test_a_pytest_that_does_not_ask_for_it_does_not_load_it(tmp_path: Path) -> None:
    done = pytest_in(tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert "[]" in done.stdout
    refused = pytest_in(tmp_path, "--osmosis-server", "http://127.0.0.1:1")
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR
