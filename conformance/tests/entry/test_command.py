"""``rollout-conformance``: what it prints and how it ends."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rollout_conformance import select
from rollout_conformance.command import main
from rollout_conformance.options import SERVER_KEY_VARIABLE


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SERVER_KEY_VARIABLE, raising=False)


def conformance(*arguments: str) -> object:
    """The exit code of ``rollout-conformance``."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


def test_a_server_that_conforms_is_exit_code_0(server: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    junit = tmp_path / "report.xml"
    code = conformance("--server", server, "--api-key", "secret", "--only", "init", "--junit", str(junit))
    output = capsys.readouterr().out
    assert code == 0, output
    count = len(select(["init"]))
    assert f"conforms: {count} passed, 0 failed" in output
    assert len(ElementTree.parse(junit).findall(".//testcase")) == count  # noqa: S314 - our own


def test_one_that_does_not_is_exit_code_1_with_the_reason(broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert conformance("--server", broken, "--only", "init.tools", "--json") == 1
    [result] = json.loads(capsys.readouterr().out)["results"]
    assert result["status"] == "failed"
    assert "requires 'c'" in result["reason"]


def test_a_server_that_wants_a_key_says_so(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert conformance("--server", server) == 1
    assert "give it as --server-key" in capsys.readouterr().err
    assert conformance("--server", server, "--server-key", "other") == 1
    assert "correct --server-key" in capsys.readouterr().err


def test_a_server_that_is_not_there_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert conformance("--server", "http://127.0.0.1:1") == 1
    assert "does not answer" in capsys.readouterr().err


def test_a_command_that_ends_is_told_with_what_it_printed(capsys: pytest.CaptureFixture[str]) -> None:
    command = f"{sys.executable} -c 'print(\"no such file\"); raise SystemExit(4)'"
    assert conformance("--server", "http://127.0.0.1:1", "--command", command) == 1
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
    assert conformance(*arguments) == 2
    assert capsys.readouterr().err.startswith("Error: ")


def test_a_baseline_of_what_fails_makes_the_same_run_pass_and_one_without_it_not(
    broken: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    baseline, only = tmp_path / "baseline", ("--server", broken, "--only", "init.tools", "--only", "init.nulls")
    assert conformance(*only, "--write-baseline", str(baseline)) == 1
    assert "baseline: 1 expected failures." in capsys.readouterr().err
    assert "\ninit.tools  # expected" in baseline.read_text()
    assert conformance(*only, "--baseline", str(baseline)) == 0
    assert "is no worse than its baseline: 1 passed, 0 failed, 1 known" in capsys.readouterr().out
    baseline.write_text("init.nulls\n")
    assert conformance(*only, "--baseline", str(baseline)) == 1
    assert "take it out: init.nulls" in capsys.readouterr().out
    baseline.write_text("init.no_such_check\n")
    assert conformance(*only, "--baseline", str(baseline)) == 2
    assert "line 1: there is no check 'init.no_such_check'" in capsys.readouterr().err


def test_the_list_shows_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert conformance("--list", "--only", "drain") == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("drain")]
    assert shown == [check.id for check in select(["drain"])]
