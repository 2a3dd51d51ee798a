"""``osmosis conformance`` and ``pytest --osmosis-server``: what they print and how they end."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.broken_servers import RequiresAnUnknownParameter
from support.live_server import LiveServer
from support.processes import own_environment
from support.small_server import SmallServer

from osmosis_ai.cli import main

DEADLINE_SECONDS = 50


@contextmanager
def served(server: SmallServer) -> Iterator[str]:
    """The URL of ``server``, which ends without a drain: what it has left is for trainers that are gone."""
    server.drain_seconds = 0.1
    with LiveServer(server.app) as live:
        yield live.url


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with served(SmallServer(api_key="secret")) as url:
        yield url


@pytest.fixture(scope="module")
def broken() -> Iterator[str]:
    with served(RequiresAnUnknownParameter()) as url:
        yield url


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(own_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("OSMOSIS_NO_DOTENV", "1")


def test_a_server_that_conforms_is_exit_code_0(server: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    junit = tmp_path / "report.xml"
    code = main(["conformance", "--server", server, "--api-key", "secret", "--only", "init", "--junit", str(junit)])
    output = capsys.readouterr().out
    assert code == 0, output
    assert "conforms: 6 passed, 0 failed" in output
    assert len(ElementTree.parse(junit).findall(".//testcase")) == 6  # noqa: S314 - our own


def test_one_that_does_not_is_exit_code_1_with_the_reason(broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--server", broken, "--only", "init.tools", "--json"]) == 1
    [result] = json.loads(capsys.readouterr().out)["results"]
    assert result["status"] == "failed"
    assert "requires 'c'" in result["reason"]


def test_a_server_that_wants_a_key_says_so(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--server", server]) == 1
    assert "give it as --api-key" in capsys.readouterr().err
    assert main(["conformance", "--server", server, "--api-key", "other"]) == 1
    assert "correct --api-key" in capsys.readouterr().err


def test_a_server_that_is_not_there_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--server", "http://127.0.0.1:1"]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_a_command_that_ends_is_told_with_what_it_printed(capsys: pytest.CaptureFixture[str]) -> None:
    command = f"{sys.executable} -c 'print(\"no such file\"); raise SystemExit(4)'"
    assert main(["conformance", "--server", "http://127.0.0.1:1", "--command", command]) == 1
    assert "exit code 4: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--server", "nonsense"],
        ["--server", "http://127.0.0.1:1", "--only", "nope"],
        ["--server", "http://127.0.0.1:1", "--command", "a", "--server-pid", "1"],
        ["--server", "http://127.0.0.1:1", "--host", "0.0.0.0"],  # noqa: S104 - refused
        ["--server", "http://127.0.0.1:1", "--init", "no-such-file"],
        ["--server", "http://127.0.0.1:1", "--command", "'"],
    ],
)
def test_a_command_line_that_makes_no_sense_is_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["conformance", *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Error: ")


def test_the_list_shows_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--list", "--only", "drain"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("drain")] == [
        "drain.killed",
        "drain.stopped",
    ]


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_own.py").write_text("def test_own():\n    pass\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-q", "-rA", *arguments],
        cwd=folder,
        env=own_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def test_with_pytest_each_check_is_a_test(server: str, tmp_path: Path) -> None:
    key = ("--osmosis-api-key", "secret")
    done = pytest_in(tmp_path, "--osmosis-server", server, *key, "--osmosis-only", "init")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout  # one is the project's own
    chosen = pytest_in(
        tmp_path, "--osmosis-server", server, *key, "-m", "osmosis_conformance", "-k", "init.nulls or init.tools"
    )
    assert "2 passed" in chosen.stdout, chosen.stdout + chosen.stderr


def test_with_pytest_a_failure_is_the_reason_and_no_traceback(broken: str, tmp_path: Path) -> None:
    done = pytest_in(tmp_path, "--osmosis-server", broken, "--osmosis-only", "init", "--osmosis-only", "auth.first")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "requires 'c'" in done.stdout
    assert "Traceback" not in done.stdout
    assert "1 failed, 6 passed, 1 skipped" in done.stdout


def test_with_pytest_a_server_that_is_not_there_fails_each_test(tmp_path: Path) -> None:
    done = pytest_in(tmp_path, "--osmosis-server", "http://127.0.0.1:1", "--osmosis-only", "init.tools")
    assert done.returncode == 1
    assert "does not answer" in done.stdout


def test_the_plugin_costs_nothing_where_it_is_not_used(tmp_path: Path) -> None:
    program = (
        "import sys, osmosis_ai.pytest_conformance; "
        "print([name for name in ('httpx', 'pydantic', 'rich', 'osmosis_ai.rollout') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"
    assert "1 passed" in pytest_in(tmp_path).stdout
