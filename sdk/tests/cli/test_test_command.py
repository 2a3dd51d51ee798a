"""``osmosis test`` as a command: what it prints and writes, whom it calls, and what it refuses."""

import asyncio
import json
import re
import subprocess
import sys
import threading
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest
from support.adder_project import (
    AGENT_OPTIONS,
    DEADLINE_SECONDS,
    SCRIPT,
    results_of,
    row,
    run,
    run_against,
    write_rows,
)
from support.model_endpoint import HANG, Answer, ModelEndpoint, arithmetic, refuse, say

from osmosis_ai._compat.commands import TestCommand
from osmosis_ai.cli import main

MCP_DIRECTORY = Path(__file__).parents[1] / "fixtures" / "mcp_calculator"


@pytest.fixture(autouse=True)
def _in_the_project(adder_project: Path) -> None:
    """Every test is in that folder."""


class TestBatch:
    def test_every_row_gets_a_line_with_reward_turns_calls_time_and_tokens(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run() == 0
        out, err = capsys.readouterr()
        assert err == ""
        lines = out.splitlines()
        assert lines[0].startswith("osmosis-rollout-test v")
        assert lines[2:8] == [
            "  Model: builtin/arithmetic",
            "Loading agent: agent:adder",
            "  Agent name: adder",
            "Loading dataset: rows.jsonl",
            "  Total rows: 3",
            "",
        ]
        assert lines[8] == "Running tests..."
        for number in range(3):
            pattern = rf"\[{number + 1}/3\] Row {number}: OK \(.+, [\d,]+ tokens\) reward 1\.00, 2 turns, 1 tool call"
            assert re.fullmatch(pattern, lines[9 + number])
        summary = out[out.index("Summary:") :]
        for line in ("Total: 3", "Passed: 3", "Failed: 0", "Mean reward: 1.00 (over 3 runs)", "Solved: 3 of 3"):
            assert f"  {line}" in summary

    def test_a_row_that_scored_0_is_not_shown_as_passed(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_rows(row(1, 2), {**row(1, 2), "ground_truth": "4"})
        assert run("-o", "results.json") == 0, "it ran"
        out = capsys.readouterr().out
        assert "Row 1: ZERO (" in out
        assert "  Passed: 1\n  Scored 0 or less: 1\n  Failed: 0\n  Mean reward: 0.50" in out
        summary = results_of()["summary"]
        assert (summary["passed"], summary["scored_zero"], summary["failed"], summary["solved"]) == (1, 1, 0, 1)

    def test_a_failure_is_counted_on_its_line_and_told_once_by_kind(self, capsys: pytest.CaptureFixture[str]) -> None:
        trouble = "[/x] \x1b[2Jno\nluck " + "at all " * 20
        write_rows(row(1, 2), row(1, 2, fail=trouble), row(1, 2, fail=trouble))
        assert run() == 1
        out, err = capsys.readouterr()
        assert re.search(r"Row 1: FAILED \(\d+ms, 0 tokens\) - RuntimeError\n", out)
        assert "    2 x RuntimeError: [/x] no luck at all" in out
        assert "(rows 1, 2)" in out
        assert (out + err).count("no luck") == 1
        assert "\x1b" not in out + err

    def test_the_file_has_all_that_a_run_can_be_repeated_from(self) -> None:
        options = ["--offset", "1", "--limit", "1", "--max-turns", "3", "--temperature", "0.5", "--max-tokens", "99"]
        assert run("-q", "-o", "new/results.json", *options) == 0
        text = Path("new/results.json").read_text()
        assert text.startswith('{\n  "summary": {\n    "total": 1,\n')
        document = json.loads(text)
        result = document["results"][0]
        assert result.items() >= {"row_index": 1, "success": True, "error": None, "reward": 1.0}.items()
        assert result["finish_reason"] == "stop"
        assert set(result["token_usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens", "num_llm_calls"}
        assert result["messages"][-1]["content"].endswith("#### 34")
        config = document["config"]
        assert config["completion_params"] == {"temperature": 0.5, "max_tokens": 99}
        assert (config["module"], config["dataset"], config["max_turns"]) == ("agent:adder", "rows.jsonl", 3)
        assert list(config["digests"]["agent"]) == ["agent.py"]
        assert len(Path("new/results.jsonl").read_text().splitlines()) == 3

    def test_quiet_prints_nothing_and_json_nothing_else(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("-q") == 0
        assert capsys.readouterr() == ("", "")
        assert run("--json") == 0
        document = json.loads(capsys.readouterr().out)
        assert document["summary"]["mean_reward"] == 1.0
        assert [result["row_index"] for result in document["results"]] == [0, 1, 2]
        assert not list(Path().glob("*.json"))

    def test_rows_are_repeated(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--repeat", "2", "-o", "results.json", "--concurrency", "3") == 0
        assert "Row 2 run 1: OK" in capsys.readouterr().out
        runs = [(result["row_index"], result["repeat"]) for result in results_of()["results"]]
        assert runs == [(number, repeat) for number in range(3) for repeat in range(2)]

    def test_a_mean_reward_can_be_asked_for(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_rows(row(1, 2), {**row(1, 2), "ground_truth": "4"})
        assert run("-q", "--min-reward", "0.5") == 0
        assert run("-q", "--min-reward", "0.75") == 1
        assert capsys.readouterr().err == "Error: --min-reward 0.75 is not reached: the mean reward is 0.5.\n"

    def test_debugging_leaves_event_files_in_a_directory_of_this_run(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--debug") == 0
        out = capsys.readouterr().out
        directory = re.search(r"Event files: (\./test_debug/\S+)\n", out)
        assert directory is not None
        assert sorted(file.name for file in Path(directory[1]).iterdir()) == [f"test-{n}.jsonl" for n in range(3)]

    def test_a_run_out_of_time_fails_and_the_others_go_on(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_rows(row(1, 2, hang=1), row(1, 2))
        assert run("--timeout", "0.05") == 1
        out = capsys.readouterr().out
        assert "Row 0: FAILED" in out
        assert "1 x time limit: No result within 0.05 s. (row 0)" in out
        assert "Row 1: OK" in out


class TestMcp:
    def test_a_directory_of_tools_takes_the_place_of_an_agent(self, capsys: pytest.CaptureFixture[str]) -> None:
        options = ["--mcp", str(MCP_DIRECTORY), "-d", "rows.jsonl", *SCRIPT, "-o", "results.json"]
        assert main(["test", *options]) == 0
        out = capsys.readouterr().out
        assert f"Loading MCP tools: {MCP_DIRECTORY}\n" in out
        assert "tool(s): " in out
        assert results_of()["config"]["digests"]["agent"]

    def test_one_without_tools_is_a_sentence(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["test", "--mcp", "nowhere", "-d", "rows.jsonl", *SCRIPT]) == 2
        err = capsys.readouterr().err
        assert err.startswith("Error: ")
        assert "nowhere" in err


class TestEndpoint:
    def test_tool_calls_round_trip_with_an_endpoint_of_ones_own(self, capsys: pytest.CaptureFixture[str]) -> None:
        with ModelEndpoint() as endpoint:
            assert run_against(endpoint, "--concurrency", "3", "--temperature", "0") == 0
        out = capsys.readouterr().out
        assert f"Connecting to endpoint: {endpoint.url}\n  Model: m\n" in out
        assert "Verifying provider connectivity..." in out
        assert "Mean reward: 1.00" in out
        assert {call.body["model"] for call in endpoint.calls} == {"m"}
        assert {call.body.get("temperature") for call in endpoint.calls[1:]} == {0}

    def test_the_window_is_as_wide_as_asked_for(self) -> None:
        write_rows(*[row(1, 2)] * 12)
        four_together = threading.Barrier(4, timeout=60)

        def answer(body: dict[str, Any]) -> Answer:
            four_together.wait()
            return arithmetic(body)

        with ModelEndpoint(say("ready"), otherwise=answer) as endpoint:
            assert run_against(endpoint, "-q", "--concurrency", "4") == 0
        assert endpoint.most_in_flight == 4

    def test_rate_limits_are_waited_out(self, capsys: pytest.CaptureFixture[str]) -> None:
        limited = [refuse(429, Retry_After="0.01")] * 3
        with ModelEndpoint(say("ok"), *limited) as endpoint:
            assert run_against(endpoint) == 0
        assert "Rate limits: 3 calls had to wait" in capsys.readouterr().out

    @pytest.mark.parametrize("answer", [refuse(401, "bad key"), refuse(404, "no such model")])
    def test_what_fails_every_row_is_found_before_the_first(
        self, answer: Answer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with ModelEndpoint(answer) as endpoint:
            assert run_against(endpoint) == 1
        out, err = capsys.readouterr()
        assert "Running tests" not in out
        assert err.startswith("Error: ")
        assert err.count("\n") == 1
        assert len(endpoint.calls) == 1

    def test_nobody_at_the_address_is_one_sentence(self, capsys: pytest.CaptureFixture[str]) -> None:
        with ModelEndpoint() as endpoint:
            pass
        assert run_against(endpoint) == 1
        err = capsys.readouterr().err
        assert err.startswith("Error: Cannot connect to API endpoint")
        assert err.count("\n") == 1

    def test_what_fails_every_row_from_some_point_on_stops_the_run(self, capsys: pytest.CaptureFixture[str]) -> None:
        with ModelEndpoint(say("ok"), say("#### 3"), refuse(401, "key revoked")) as endpoint:
            assert run_against(endpoint, "-o", "results.json") == 1
        out = capsys.readouterr().out
        assert "  Total: 2 of 3\n" in out
        assert "Stopped early due to systemic provider error. Reason: Authentication failed" in out
        summary = results_of()["summary"]
        assert (summary["stopped_early"], summary["total"], summary["passed"]) == (True, 2, 1)
        assert len(results_of()["results"]) == 2

    @pytest.mark.slow
    @pytest.mark.parametrize("answer", [Answer(b'{"choices": []}'), refuse(400, "bad request")])
    def test_an_answer_that_is_of_no_use_fails_its_row(self, answer: Answer) -> None:
        with ModelEndpoint(say("ok"), otherwise=lambda body: answer) as endpoint:
            write_rows(row(1, 2))
            assert run_against(endpoint, "-q", "-o", "results.json") == 1
        assert results_of()["results"][0]["error_kind"] in ("malformed reply", "refused request")

    def test_an_endpoint_that_hangs_costs_a_row_its_time_and_no_more(self) -> None:
        with ModelEndpoint(say("ok"), HANG) as endpoint:
            assert run_against(endpoint, "-q", "-o", "results.json", "--timeout", "0.3") == 1
        assert [result["error_kind"] for result in results_of()["results"]] == ["time limit", None, None]


@pytest.mark.slow  # LiteLLM takes seconds to load
class TestLiteLlm:
    def test_a_model_by_name_goes_through_litellm_with_its_price(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with ModelEndpoint(say("ok"), refuse(429, Retry_After="0.01"), refuse(500)) as endpoint:
            monkeypatch.setenv("OPENAI_API_KEY", "secret")
            monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
            assert run("--concurrency", "2", model=[]) == 0
        out, err = capsys.readouterr()
        assert "Initializing provider: openai\n  Model: gpt-4o\n" in out
        assert "Mean reward: 1.00" in out
        assert "Cost: $0.000" in out
        assert "Rate limits: 1 call had to wait" in out
        assert "secret" not in out + err
        assert len(endpoint.calls) == 1 + 2 + 3 * 2, "LiteLLM does not try again on its own"


class TestChecks:
    def test_the_default_model_without_a_key_says_which_variable_to_set(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(model=[]) == 1
        assert capsys.readouterr().err == (
            "Error: Missing API key for provider 'openai': set the variable OPENAI_API_KEY or LITELLM_API_KEY, or give"
            " --model-api-key.\n"
        )

    @pytest.mark.slow
    def test_it_does_so_without_loading_litellm(self) -> None:
        script = (
            "import sys; from osmosis_ai.cli import main\n"
            f"assert main(['test', *{AGENT_OPTIONS}]) == 1\n"
            "print('litellm' in sys.modules)"
        )
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert ended.stdout.splitlines()[-1] == "False"

    @pytest.mark.parametrize(
        ("arguments", "code", "sentence"),
        [
            (["-d", "gone.jsonl"], 2, "Dataset file not found: gone.jsonl"),
            (["-d", "agent.py"], 2, "Unsupported file format '.py'"),
            (["-m", "nowhere:adder"], 1, "Cannot import module 'nowhere'"),
            (["-m", "agent:addr"], 1, "did you mean 'adder'?"),
            (["--model", "builtin/chess"], 2, "builtin/arithmetic"),
            (["--base-url", "localhost"], 2, "is not a base URL"),
            (["--mcp", "tools"], 2, "mutually exclusive"),
            (["--row", "1"], 2, "--row works in --interactive mode only"),
            (["--resume"], 2, "--resume needs -o FILE"),
            (["-i", "-o", "x.json"], 2, "--output is for a batch"),
            (["-i", "--json"], 2, "--json is for a batch"),
            (["--temperature", "inf"], 2, "--temperature must be a finite number"),
            (["-o", "."], 1, "Cannot write .: it is not a regular file"),
            (["--offset", "9"], 1, "No rows to test"),
            (["--api-key", "@gone"], 2, "--api-key @gone: the file cannot be read"),
        ],
    )
    def test_a_mistake_is_one_sentence(
        self, arguments: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(*arguments) == code
        err = capsys.readouterr().err
        assert err.startswith("Error: ")
        assert err.count("\n") == 1
        assert sentence in err

    def test_neither_an_agent_nor_tools_is_a_mistake(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["test", "-d", "rows.jsonl", *SCRIPT]) == 2
        assert "is required" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--limit", "0"],
            ["--offset", "-2"],
            ["--max-turns", "0"],
            ["--concurrency", "0"],
            ["--repeat", "x"],
            ["--fly"],
        ],
    )
    def test_a_wrong_command_line_is_exit_code_2(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ending:
            run(*arguments)
        assert ending.value.code == 2
        assert arguments[0] in capsys.readouterr().err

    def test_the_model_is_told_whatever_else_is_wrong(self, capsys: pytest.CaptureFixture[str]) -> None:
        options = [
            "-m",
            "no:thing",
            "-d",
            "gone.jsonl",
            "--model",
            "Qwen/Qwen3-0.6B",
            "--base-url",
            "http://127.0.0.1:9/v1",
        ]
        assert main(["test", *options]) == 1
        assert "\n  Model: Qwen/Qwen3-0.6B\n" in capsys.readouterr().out


class TestAsAClass:
    def test_it_can_be_part_of_another_program(self, capsys: pytest.CaptureFixture[str]) -> None:
        parser = ArgumentParser()
        TestCommand().configure_parser(parser)
        arguments = parser.parse_args(["--agent", "agent:adder", "-d", "rows.jsonl", *SCRIPT, "--limit", "1"])
        assert arguments.handler(arguments) == 0
        assert "Total rows: 3 (testing 1)" in capsys.readouterr().out

    def test_a_partial_namespace_is_enough(self) -> None:
        check = TestCommand()._validate_args
        base: dict[str, Any] = {"module": "a:b", "mcp": None, "row": None, "interactive": False}
        assert check(Namespace(**base)) is None
        assert "mutually exclusive" in str(check(Namespace(**{**base, "mcp": "x"})))
        assert "required" in str(check(Namespace(**{**base, "module": None})))
        problem = str(check(Namespace(**{**base, "row": 1})))
        assert "--row" in problem
        assert "--interactive" in problem

    @pytest.mark.parametrize(("name", "value"), [("limit", 0), ("offset", -2), ("max_turns", 0)])
    def test_numbers_out_of_range_are_refused_here_too(self, name: str, value: int) -> None:
        problem = TestCommand()._validate_args(Namespace(module="a:b", **{name: value}))
        assert f"--{name.replace('_', '-')} must be >=" in str(problem)


@pytest.mark.slow
def test_its_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from osmosis_ai.cli import main\n"
        "try: main(['test', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('aiohttp', 'httpx', 'litellm', 'rich') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--min-reward" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "[]"


async def test_it_runs_inside_an_event_loop_too(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = Namespace(module="agent:adder", dataset="rows.jsonl", model="builtin/arithmetic")
    assert await asyncio.wait_for(TestCommand()._run_async(arguments), DEADLINE_SECONDS) == 0
    assert "Mean reward: 1.00" in capsys.readouterr().out
