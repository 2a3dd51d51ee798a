"""``osmosis test`` as a process: gone on with, killed, and in a terminal."""

import json
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from support.adder_project import (
    AGENT,
    AGENT_OPTIONS,
    DEADLINE_SECONDS,
    SCRIPT,
    results_of,
    row,
    run,
    run_against,
    wait_for_file,
    write_rows,
)
from support.model_endpoint import HANG, ModelEndpoint, refuse, say
from support.terminal import Screen, terminal as in_terminal


@pytest.fixture(autouse=True)
def _in_the_project(adder_project: Path) -> None:
    """Every test is in that folder."""


class TestGoingOn:
    def test_a_resumed_run_calls_only_for_what_is_missing(self, capsys: pytest.CaptureFixture[str]) -> None:
        with ModelEndpoint(say("ok"), say("#### 3"), refuse(401)) as endpoint:
            assert run_against(endpoint, "-q", "-o", "results.json") == 1
            before = len(endpoint.calls)
            capsys.readouterr()
            assert run_against(endpoint, "-o", "results.json", "--resume") == 0
            assert len(endpoint.calls) == before + 1 + 2 * 2, "the check, and two calls for each of two rows"
        out = capsys.readouterr().out
        assert "Going on with results.jsonl: 1 of 3 runs are there." in out
        assert "[2/3] Row 1: OK" in out
        document = results_of()
        assert [result["row_index"] for result in document["results"]] == [0, 1, 2]
        assert (document["summary"]["total"], document["summary"]["resumed"]) == (3, 1)

    @pytest.mark.parametrize(
        ("change", "name"),
        [
            (lambda: write_rows(row(5, 5)), "rows.jsonl"),
            (lambda: Path("agent.py").write_text(AGENT + "\n"), "agent.py"),
            (lambda: None, "settings max_turns"),
        ],
    )
    def test_a_changed_input_is_refused_by_name(
        self, change: Any, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("-q", "-o", "results.json") == 0
        change()
        options = ["--max-turns", "3"] if name.startswith("settings") else []
        assert run("-q", "-o", "results.json", "--resume", *options) == 1
        assert f"changed since it was written: {name};" in capsys.readouterr().err

    @pytest.mark.slow
    def test_ctrl_c_leaves_all_that_ended_and_a_summary(self) -> None:
        write_rows(row(1, 2), row(3, 4), row(5, 6, hang=1))
        command = [sys.executable, "-m", "osmosis_ai", "test", *AGENT_OPTIONS, *SCRIPT, "-o", "results.json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                wait_for_file(Path("hanging"))
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=DEADLINE_SECONDS)
            finally:
                process.kill()
        assert process.returncode == 130
        assert err == "Interrupted: 2 of 3 runs had ended: go on with --resume.\n"
        assert "  Total: 2 of 3\n" in out
        document = results_of()
        assert (document["summary"]["interrupted"], len(document["results"])) == (True, 2)

    @pytest.mark.slow
    def test_a_kill_leaves_every_line_that_was_written(self) -> None:
        write_rows(row(1, 2), row(3, 4), row(5, 6, hang=1))
        command = [sys.executable, "-m", "osmosis_ai", "test", *AGENT_OPTIONS, *SCRIPT, "-q", "-o", "results.json"]
        with subprocess.Popen(command) as process:
            try:
                wait_for_file(Path("hanging"))
            finally:
                process.kill()
        lines = [json.loads(line) for line in Path("results.jsonl").read_text().splitlines()]
        assert [line.get("row_index") for line in lines] == [None, 0, 1]
        assert not Path("results.json").exists()


class TestInteractive:
    @pytest.mark.slow
    def test_it_works_over_a_pipe(self) -> None:
        command = [sys.executable, "-m", "osmosis_ai", "test", *AGENT_OPTIONS, *SCRIPT, "-i", "--row", "1"]
        typed = "n\ne tool 1 35\nn\nm\n\nq\n"
        ended = subprocess.run(
            command, input=typed, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "(Interactive Mode)" in ended.stdout
        assert "[Tool (add)] 34" in ended.stdout
        assert "#### 35" in ended.stdout
        assert "Reward: 0.0" in ended.stdout
        assert "> e tool 1 35\n" in ended.stdout, "a transcript shows what was typed"
        assert ended.stdout.endswith("Interactive session ended.\n")

    def test_it_works_in_a_terminal(self) -> None:
        with terminal("-i") as screen:
            screen.type_after("Select a row to test [0-2]", "0\n")
            screen.type_after("Turn 1: LLM Response", "n\n")
            screen.type_after("Turn 2: LLM Response", "\n")
            screen.type_after("[m]essages, [Enter] continue", "\n")
            screen.type_after("Select a row to test", "q\n")
            assert screen.exit_code() == 0
        assert "Interactive session ended." in screen.text
        assert "Traceback" not in screen.text

    @pytest.mark.slow
    @pytest.mark.parametrize("place", ["Select a row to test", "[n]ext, [c]ontinue", "[m]essages, [Enter] continue"])
    def test_ctrl_c_at_any_prompt_leaves_cleanly(self, place: str) -> None:
        with terminal("-i") as screen:
            if "Select" not in place:
                screen.type_after("Select a row to test", "0\n")
            if "Enter" in place:
                screen.type_after("[n]ext", "c\n")
            screen.type_after(place, "\x03")
            assert screen.exit_code() == 130
        assert "Interactive session ended." in screen.text
        assert "Traceback" not in screen.text

    @pytest.mark.slow
    def test_ctrl_d_leaves_the_row_and_then_the_session(self) -> None:
        with terminal("-i", "--row", "0") as screen:
            screen.type_after("[n]ext", "\x04")
            screen.type_after("Select a row to test", "\x04")
            assert screen.exit_code() == 0
        assert "Aborted by user" in screen.text

    @pytest.mark.slow
    def test_ctrl_c_while_the_model_is_called_leaves_cleanly(self) -> None:
        with (
            ModelEndpoint(say("ok"), HANG) as endpoint,
            terminal("-i", "--row", "0", model=["--model", "m", "--base-url", endpoint.url]) as screen,
        ):
            endpoint.wait_for_calls(2)
            screen.type("\x03")
            assert screen.exit_code() == 130
        assert "Traceback" not in screen.text

    @pytest.mark.slow
    def test_a_batch_in_a_terminal_shows_its_progress_and_ends_on_ctrl_c(self) -> None:
        write_rows(row(1, 2), row(3, 4), row(5, 6, hang=1))
        with terminal() as screen:
            screen.wait_for("[2/3] Row 1: OK")
            screen.wait_for("rows/s")
            wait_for_file(Path("hanging"))
            screen.type("\x03")
            assert screen.exit_code() == 130
        assert "Mean reward: 1.00" in screen.text
        assert "Interrupted: 2 of 3 runs had ended." in screen.text


def terminal(*arguments: str, model: list[str] = SCRIPT) -> AbstractContextManager[Screen]:
    return in_terminal(["test", *AGENT_OPTIONS, *model, *arguments])
