"""``osmosis init``: what it says, and what it refuses in one sentence."""

import json
from pathlib import Path

import pytest

from osmosis_ai.cli import main

Captured = pytest.CaptureFixture[str]


def test_it_writes_a_project_and_says_what_to_do_next(working_directory: Path, capsys: Captured) -> None:
    assert main(["init", "agents/weather"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "holds the agent 'weather'" in out
    assert "  cd agents/weather\n  uv run pytest\n" in out
    assert (working_directory / "agents" / "weather" / "server.py").exists()


def test_json_tells_what_it_wrote(working_directory: Path, capsys: Captured) -> None:
    assert main(["init", "weather", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["folder"], told["name"]) == ("weather", "weather")
    assert all((working_directory / "weather" / name).is_file() for name in told["files"])
    assert "server.py" in told["files"]


def test_the_agent_that_it_wrote_is_healthy(
    working_directory: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["init", "agent", "--name", "rain"]) == 0
    monkeypatch.chdir(working_directory / "agent")
    assert main(["doctor", "-m", "server:agent_loop", "-p", "0", "--local", "--timeout", "20"]) == 0
    assert "'rain' is valid." in capsys.readouterr().out


def test_another_sdk_may_be_named(working_directory: Path) -> None:
    assert main(["init", "agent", "--sdk", "git+https://host/repo#subdirectory=sdk"]) == 0
    project = (working_directory / "agent" / "pyproject.toml").read_text()
    assert 'osmosis-ai = { git = "https://host/repo", subdirectory = "sdk" }' in project


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["."], "is not empty"), (["agent", "--name", "a b"], "--name"), (["agent", "--sdk", "nowhere"], "--sdk")],
)
def test_what_it_refuses(arguments: list[str], word: str, working_directory: Path, capsys: Captured) -> None:
    (working_directory / "file").touch()
    assert main(["init", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Error: ")
    assert word in err
    assert err.count("\n") == 1
    assert not (working_directory / "agent").exists()
