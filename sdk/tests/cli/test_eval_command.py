import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.model_endpoint import HANG, Answer, ModelEndpoint, refuse, reply, say

from osmosis_ai.cli import main
from osmosis_ai.cli.eval_command import eval_
from osmosis_ai.rollout.core.consts import PACKAGE_VERSION

DEADLINE_SECONDS = 60.0

SCORES = """
def right(solution_str, ground_truth):
    return float(solution_str.endswith(f"#### {ground_truth}"))

async def length(messages):
    return len(messages)

def crash(solution_str):
    raise ValueError("cannot score [/x] this")

def silent(solution_str):
    return None

def greedy(solution_str, weight):
    return weight
"""


PARTS = '{"reward": 0.25, "right": 0.5}'


@dataclass(frozen=True)
class Ended:
    """What a finished command left."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def project(working_directory: Path, user_agent: str) -> Path:
    """A folder with an agent, eval functions and four rows."""
    (working_directory / "scores.py").write_text(SCORES)
    rows = [
        {"system_prompt": "s", "user_prompt": f"What is {n} + {n}?", "ground_truth": str(2 * n), "level": n}
        for n in range(4)
    ]
    (working_directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return working_directory


@pytest.fixture
def evaluate(project: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``osmosis eval`` on the agent and the rows."""

    def run(*given: str, fn: str | None = "scores:right") -> Ended:
        functions = ["--eval-fn", fn] if fn else []
        arguments = ["eval", "-m", "user_agent:agent_loop", "-d", "rows.jsonl", *functions, *given]
        return Ended(main(arguments), *capsys.readouterr())

    return run


def know_it(body: dict[str, Any]) -> Answer:
    """A model that doubles in its head, but not 3."""
    number = int(body["messages"][-1]["content"].split()[2])
    return say(f"#### {2 * number if number != 3 else 0}")


@pytest.fixture
def endpoint() -> Iterator[ModelEndpoint]:
    with ModelEndpoint(say("ok"), otherwise=know_it) as endpoint:  # the first call is the preflight check
        yield endpoint


def at(endpoint: ModelEndpoint, *given: str) -> list[str]:
    return ["--model", "some-model", "--base-url", endpoint.url, *given]


def test_it_reports_what_the_model_can_do(evaluate: Command, endpoint: ModelEndpoint) -> None:
    ended = evaluate(*at(endpoint, "--eval-fn", "scores:length", "--n", "3", "--batch-size", "4"))
    assert (ended.code, ended.err) == (0, "")
    for line in (
        f"osmosis-eval v{PACKAGE_VERSION}",
        f"Endpoint: {endpoint.url}",
        "Model: some-model",
        "Loading eval functions: scores:right, scores:length",
        "  scores:length (full mode)",
        "Running evaluation (4 rows x3 runs, batch_size=4)...",
    ):
        assert line in ended.out
    shown = re.findall(
        r"^\[(\d+)/12\] Row (\d) run (\d): (OK|ZERO) \([\d.ms]+, [\d,]+ tokens\)"
        r" (?:reward \S+, )?scores:right [01]\.00, scores:length \d+\.00, 1 turn, 0 tool calls$",
        ended.out,
        re.M,
    )
    assert [place for place, *_ in shown] == [str(place) for place in range(1, 13)]
    assert {(row, repeat) for _, row, repeat, _ in shown} == {(row, repeat) for row in "0123" for repeat in "012"}
    [line] = [line for line in ended.out.splitlines() if line.strip().startswith("scores:right  |")]
    assert [cell.strip() for cell in line.split("|")][2:] == ["0.750", "0.000", "1.000", "0.433", *["75.0%"] * 3]
    assert len(endpoint.calls) == 13


def test_the_file_holds_all_it_takes_to_run_it_again(evaluate: Command, project: Path, endpoint: ModelEndpoint) -> None:
    options = ["--temperature", "0.5", "--offset", "1", "--limit", "2", "-o", "out/r.json", "--seed", "9"]
    ended = evaluate(*at(endpoint, "--api-key", "sk-key", *options))
    assert ended.code == 0
    assert ended.out.endswith("\nResults written to: out/r.json\n")
    text = (project / "out" / "r.json").read_text()
    document = json.loads(text)
    config = document["config"]
    assert (config["model"], config["endpoint"], config["seed"]) == ("some-model", endpoint.url, 9)
    assert (config["eval_fns"], config["n_runs"], config["pass_threshold"]) == (["scores:right"], 1, 1.0)
    assert config["completion_params"] == {"temperature": 0.5}
    assert config["dataset"] | {"sha256": len(config["dataset"]["sha256"])} == {
        "path": "rows.jsonl",
        "sha256": 64,
        "rows": 2,
        "offset": 1,
        "limit": 2,
        "columns": None,
    }
    assert config["sdk_version"] == PACKAGE_VERSION
    assert "sk-key" not in text + ended.out
    summary = document["summary"]
    assert (summary["total_rows"], summary["total_runs"], summary["stopped_early"]) == (2, 2, False)
    assert summary["eval_fns"]["scores:right"]["mean"] == 1.0
    assert summary["latency_ms"]["p95"] > 0
    assert [row["row_index"] for row in document["rows"]] == [1, 2]
    [run] = document["rows"][0]["runs"]
    assert (run["run_index"], run["success"], run["scores"], run["tokens"]) == (0, True, {"scores:right": 1.0}, 15)
    result = document["results"][0]
    assert (result["row_index"], result["repeat"], result["scores"]) == (1, 0, {"scores:right": 1.0})
    assert result["messages"][-1]["content"] == "#### 2"
    assert (result["ground_truth"], result["metadata"]) == ("2", {"level": 1})
    lines = [json.loads(line) for line in (project / "out" / "r.jsonl").read_text().splitlines()]
    assert [line.get("row_index") for line in lines] == [None, 1, 2, None]
    assert sorted(path.name for path in (project / "out").iterdir()) == ["r.json", "r.jsonl"]


def test_a_baseline_is_compared_row_by_row(evaluate: Command, project: Path, endpoint: ModelEndpoint) -> None:
    baseline = ["--baseline", "weaker", "--baseline-base-url"]
    with ModelEndpoint(otherwise=lambda body: say("#### 0")) as weaker:
        ended = evaluate(*at(endpoint, *baseline, weaker.url, "-o", "r.json", "--report", "r.html", "--report", "r.md"))
    assert (ended.code, ended.err) == (0, "")
    assert "Running evaluation (4 rows x2 models)..." in ended.out
    assert re.search(r"^\[1/8\] Row 0 \[(primary|baseline)\]: (OK|ZERO) \(", ended.out, re.M)
    assert "scores:right: primary minus baseline +0.500, 95% interval [" in ended.out
    document = json.loads((project / "r.json").read_text())
    assert document["config"]["baseline_model"] == "weaker"
    assert [(model["model"], model["eval_fns"]["scores:right"]["mean"]) for model in document["model_summaries"]] == [
        ("some-model", 0.75),
        ("weaker", 0.25),
    ]
    comparison = document["comparison"]["scores:right"]
    assert (comparison["rows"], comparison["difference"], comparison["p_value"]) == (4, 0.5, 0.5)
    assert "Primary minus baseline" in (project / "r.html").read_text()
    assert "| scores:right | 4 | 0 | +0.500 |" in (project / "r.md").read_text()


def test_json_on_standard_output_is_nothing_but_json(evaluate: Command, endpoint: ModelEndpoint) -> None:
    ended = evaluate(*at(endpoint, "--json"))
    document = json.loads(ended.out)
    assert document["summary"]["total_runs"] == 4
    assert [row["row_index"] for row in document["rows"]] == [0, 1, 2, 3]
    [run] = document["rows"][3]["runs"]
    told = {name: run[name] for name in ("outcome", "scores", "tokens", "finish_reason", "zero_reason")}
    reason = told.pop("zero_reason")
    assert told == {"outcome": "completed", "scores": {"scores:right": 0.0}, "tokens": 15, "finish_reason": "stop"}
    assert reason.startswith("called no tool")
    assert document["summary"]["cost_usd"] is None


def test_quiet_is_quiet(evaluate: Command, endpoint: ModelEndpoint) -> None:
    assert evaluate(*at(endpoint, "-q")) == Ended(0, "", "")


def test_a_builtin_model_needs_neither_key_nor_network(evaluate: Command) -> None:
    assert evaluate("--model", "builtin/arithmetic", "-q").code == 0


class TestWhatGoesWrong:
    def test_a_crashing_function_is_an_error_and_no_zero(self, evaluate: Command, endpoint: ModelEndpoint) -> None:
        ended = evaluate(*at(endpoint, "--eval-fn", "scores:crash"))
        assert ended.code == 0
        assert "scores:crash error, " in ended.out
        assert "Runs on which scores:crash failed: 4.\n" in ended.out
        assert "4 x scores:crash: ValueError: cannot score [/x] this" in ended.out
        assert "N/A" in ended.out

    def test_a_score_beyond_its_stated_range_is_an_error(
        self, evaluate: Command, project: Path, endpoint: ModelEndpoint
    ) -> None:
        ended = evaluate(*at(endpoint, "--eval-fn", "scores:length", "--score-range=-1,1", "--json"))
        assert ended.code == 0
        scores = json.loads(ended.out)["summary"]["eval_fns"]
        assert "scores:length returned 3, which is beyond the stated -1 to 1" in scores["scores:length"]["first_error"]
        assert scores["scores:right"]["mean_interval"]["low"] < 0.2
        assert scores["scores:right"]["mean_interval"]["high"] <= 1.0

    def test_if_every_score_is_an_error_so_is_the_exit_code(self, evaluate: Command, endpoint: ModelEndpoint) -> None:
        ended = evaluate(*at(endpoint), fn="scores:crash")
        assert ended.code == 1
        assert "Error: Every eval function failed on every run; the first: ValueError: cannot score" in ended.err

    def test_no_reward_is_no_error(self, evaluate: Command, endpoint: ModelEndpoint) -> None:
        ended = evaluate(*at(endpoint), fn="scores:silent")
        assert ended.code == 0
        assert "scores:silent none, " in ended.out
        assert "no reward for 4 runs" in ended.out

    def test_if_every_run_fails_it_has_failed(self, evaluate: Command, endpoint: ModelEndpoint) -> None:
        endpoint.otherwise = lambda body: refuse(400, "too [/x] long")
        ended = evaluate(*at(endpoint))
        assert ended.code == 1
        assert "FAILED" in ended.out
        assert "Error: Every run failed; the first: " in ended.err

    def test_a_failure_of_the_provider_is_no_zero(
        self, evaluate: Command, project: Path, endpoint: ModelEndpoint
    ) -> None:
        endpoint.otherwise = lambda body: refuse(400, "busy") if "What is 0" in str(body) else say("#### 2")
        ended = evaluate(*at(endpoint, "--limit", "2", "-o", "r.json", "--report", "r.md"))
        assert ended.code == 1
        assert "Error: 1 of 2 runs failed (provider 1) and count nowhere" in ended.err
        assert "Failed runs (provider): 1.\n" in ended.out
        assert ended.out.count("LLM API error (HTTP 400): busy") == 1
        assert "; without 1 run that failed" in ended.out
        document = json.loads((project / "r.json").read_text())
        scores = document["summary"]["eval_fns"]["scores:right"]
        assert (scores["mean"], scores["scored_runs"], scores["failed_runs"]) == (1.0, 1, 1)
        assert document["summary"]["failures"] == {"provider": 1, "time limit": 0, "policy": 0, "agent": 0}
        assert document["rows"][0]["runs"][0]["error_kind"] == "refused request"
        assert "| provider |" in (project / "r.md").read_text()

    def test_a_zero_has_a_reason(self, evaluate: Command, endpoint: ModelEndpoint) -> None:
        endpoint.otherwise = lambda body: reply({"role": "assistant", "content": "Well, let"}, "length")
        ended = evaluate(*at(endpoint))
        assert ended.code == 0
        assert "Scored 0 or less: 4 runs" in ended.out
        assert "4 of 4: truncated at max_tokens" in ended.out

    def test_if_it_stops_early_it_has_failed(self, evaluate: Command, project: Path, endpoint: ModelEndpoint) -> None:
        endpoint.answers += [know_it({"messages": [{"content": "What is 0"}]}), refuse(401, "key withdrawn")]
        ended = evaluate(*at(endpoint, "-o", "r.json"))
        assert ended.code == 1
        assert "Stopped early: " in ended.out
        assert "Error: The evaluation stopped early: " in ended.err
        summary = json.loads((project / "r.json").read_text())["summary"]
        assert (summary["total_runs"], summary["stopped_early"]) == (2, True)
        assert "key withdrawn" in summary["stop_reason"]

    @pytest.mark.parametrize(
        ("given", "fn", "code", "sentence"),
        [
            (["-d", "gone.jsonl"], "scores:right", 2, "gone.jsonl"),
            (["--offset", "9"], "scores:right", 1, "No rows to evaluate"),
            (["--report", "r.pdf"], "scores:right", 2, "use .md or .html"),
            (["-o", "."], "scores:right", 1, "Cannot write .: it is not a regular file"),
            (["-o", "rows.jsonl/r.json"], "scores:right", 1, "rows.jsonl is not a folder that can be written to"),
            (["-o", "r.jsonl"], "scores:right", 2, "name a .json file"),
            (["--report", "rows.jsonl/r.md"], "scores:right", 1, "rows.jsonl is not a folder that can be written to"),
            (["--model", "gpt-4o", "--base-url", ""], "scores:right", 1, "OPENAI_API_KEY"),
            ([], "scores:gone", 1, "scores:gone"),
            ([], "scores:greedy", 1, "needs the argument 'weight'"),
            ([], "scores", 2, "scores"),
            (["-m", "gone:agent"], "scores:right", 1, "gone"),
        ],
    )
    def test_it_is_one_sentence_before_any_run(
        self,
        evaluate: Command,
        endpoint: ModelEndpoint,
        monkeypatch: pytest.MonkeyPatch,
        given: list[str],
        fn: str,
        code: int,
        sentence: str,
    ) -> None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        monkeypatch.delenv("LITELLM_API_KEY", raising=False)
        ended = evaluate(*at(endpoint, *given), fn=fn)
        assert ended.code == code
        assert (ended.err.startswith("Error: "), ended.err.count("\n")) == (True, 1)
        assert sentence in ended.err
        assert endpoint.calls == []

    def test_an_option_that_is_missing_is_a_usage_error(self, project: Path) -> None:
        with pytest.raises(SystemExit) as ending:
            main(["eval", "-m", "user_agent:agent_loop", "--model", "m"])
        assert ending.value.code == 2


def with_reward(project: Path, reward: str) -> None:
    agent = project / "user_agent.py"
    agent.write_text(agent.read_text().replace("reward=1.0", f"reward={reward}"))
    sys.modules.pop("user_agent", None)


class TestTheAgentsOwnReward:
    def test_it_is_the_score_where_no_function_is_named(
        self, evaluate: Command, project: Path, endpoint: ModelEndpoint
    ) -> None:
        with_reward(project, PARTS)
        ended = evaluate(*at(endpoint, "-o", "r.json"), fn=None)
        assert ended.code == 0, ended.err
        assert "tokens) reward 0.25, right 0.50, " in ended.out
        assert "    right: 0.50 " in ended.out
        assert json.loads((project / "r.json").read_text())["summary"]["eval_fns"]["reward"]["mean"] == 0.25

    def test_one_that_gives_none_is_told_what_to_do(
        self, evaluate: Command, project: Path, endpoint: ModelEndpoint
    ) -> None:
        with_reward(project, "None")
        ended = evaluate(*at(endpoint, "--n", "4"), fn=None)
        assert ended.code == 1
        assert ended.err.startswith("Error: The agent gives no reward, and no --eval-fn scores it: name a function (")
        assert len(endpoint.calls) < 4 * 4, "what nobody can score is not paid for"


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_keeps_what_there_is_and_the_next_run_does_not_overwrite_it(
    evaluate: Command, project: Path, endpoint: ModelEndpoint, number: signal.Signals
) -> None:
    endpoint.answers += [know_it({"messages": [{"content": "What is 0"}]}), HANG]
    arguments = ["-m", "user_agent:agent_loop", "-d", "rows.jsonl", "--eval-fn", "scores:right", "-o", "r.json"]
    command = [sys.executable, "-m", "osmosis_ai", "eval", *arguments, *at(endpoint)]
    environment = {**os.environ, "OSMOSIS_NO_DOTENV": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            endpoint.wait_for_calls(3)
            process.send_signal(number)
            out, err = process.communicate(timeout=DEADLINE_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 128 + number
    assert "Stopped early: interrupted" in out
    assert err == "Interrupted: the report covers the runs that had ended.\n"
    document = json.loads((project / "r.json").read_text())
    assert [row["row_index"] for row in document["rows"]] == [0]

    (project / "r.jsonl").write_text((project / "r.jsonl").read_text().replace('{"finished": true}\n', ""))
    endpoint.answers = [say("ok")]
    ended = evaluate(*at(endpoint, "-o", "r.json"))
    assert "Runs of an earlier evaluation were kept: r.unfinished-1.jsonl" in ended.out
    assert '"row_index": 0' in (project / "r.unfinished-1.jsonl").read_text()


def test_the_options_are_those_of_the_specification() -> None:
    assert eval_.__name__ == "eval_"
    names = {
        "eval_fns",
        "n_runs",
        "pass_threshold",
        "batch_size",
        "baseline_model",
        "baseline_base_url",
        "mcp",
        "output",
    }
    assert names <= set(eval_.__annotations__)
