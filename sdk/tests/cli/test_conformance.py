"""``osmosis conformance`` is the command of another distribution, wherever that is installed."""

import subprocess
import sys

import pytest

from osmosis_ai.cli import main
from osmosis_ai.cli.app import COMMANDS
from rollout_conformance.command import conformance


def test_it_is_the_kits_own_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert COMMANDS["conformance"] is conformance
    assert main(["conformance", "--list", "--only", "drain"]) == 0
    assert "drain.stopped" in capsys.readouterr().out


def test_a_server_that_is_not_there_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--server", "http://127.0.0.1:1"]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_a_command_line_that_makes_no_sense_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["conformance", "--server", "nonsense"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Error: --server 'nonsense'")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--server", "http://127.0.0.1:1"]])
def test_where_the_kit_is_not_installed_it_says_what_to_install(arguments: list[str]) -> None:
    program = "import sys; sys.modules['rollout_conformance'] = None; from osmosis_ai.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "conformance", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert done.stderr == "Error: The conformance kit is not installed: pip install rollout-conformance.\n"
