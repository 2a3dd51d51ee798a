"""The command as other code drives it: in parts, with stand-ins for what it loads."""

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.rollouts import ScriptedAgent, chat_once

from osmosis_ai.rollout.run.evaluate import EvalFnWrapper, cli, runner
from osmosis_ai.rollout.run.evaluate.cli import EvalCommand
from osmosis_ai.rollout.run.policies import ArithmeticPolicy

ROW = {"ground_truth": "3", "user_prompt": "What is 1 + 2?", "system_prompt": "s"}


class Client:
    def __init__(self) -> None:
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


class OpaqueRunner:
    made: list[dict[str, Any]]
    run: list[dict[str, Any]]

    def __init__(self, **options: Any) -> None:
        self.made.append(options)

    async def run_eval(self, **options: Any) -> object:
        self.run.append(options)
        return object()


def arguments(**given: Any) -> Namespace:
    defaults = {
        "module": "m:agent",
        "mcp": None,
        "dataset": "d.jsonl",
        "model": "m",
        "eval_fns": ["m:fn"],
        "quiet": True,
    }
    return Namespace(**{**defaults, **given})


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    """What every part but the network gives to the command."""
    client = Client()

    async def verify(*arguments: Any) -> None:
        return None

    monkeypatch.setattr(cli, "create_llm_client", lambda **options: (client, None))
    monkeypatch.setattr(cli, "load_agent", lambda **options: (ScriptedAgent(chat_once), None))
    monkeypatch.setattr(cli, "load_dataset_rows", lambda **options: ([ROW], None))
    monkeypatch.setattr(cli, "verify_llm_client", verify)
    wrapper = EvalFnWrapper(lambda solution_str: 1.0, "m:fn")
    monkeypatch.setattr(EvalCommand, "_load_eval_fns", lambda self, args: ([wrapper], None))
    return client


async def test_a_result_of_another_kind_is_a_success(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    OpaqueRunner.made, OpaqueRunner.run = [], []
    monkeypatch.setattr(runner, "EvalRunner", OpaqueRunner)
    assert await EvalCommand()._run_async(arguments(n_runs=2, batch_size=3)) == 0
    [options] = OpaqueRunner.run
    assert (options["rows"], options["n_runs"], options["batch_size"]) == ([ROW], 2, 3)
    assert "fail_fast" not in options
    assert OpaqueRunner.made[0]["llm_client"] is client
    assert client.closed == 1


def refuse(part: str) -> Callable[..., Any]:
    async def later(*arguments: Any) -> str:
        return f"{part} refused"

    if part == "verify_llm_client":
        return later
    return lambda **options: (None, f"{part} refused")


@pytest.mark.parametrize("part", ["load_agent", "load_dataset_rows", "verify_llm_client"])
async def test_what_cannot_be_loaded_is_told_and_the_client_closed(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    monkeypatch.setattr(cli, part, refuse(part))
    assert await EvalCommand()._run_async(arguments()) == 1
    assert capsys.readouterr().err == f"Error: {part} refused\n"
    assert client.closed == 1


async def test_the_network_is_the_last_to_be_asked(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def verify(*arguments: Any) -> str:
        asked.append("network")
        return "refused"

    monkeypatch.setattr(cli, "verify_llm_client", verify)
    monkeypatch.setattr(EvalCommand, "_load_eval_fns", lambda self, args: (None, "no such function"))
    assert await EvalCommand()._run_async(arguments()) == 1
    assert asked == []


async def test_an_exception_while_running_is_told(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(self: OpaqueRunner, **options: Any) -> object:
        raise RuntimeError("broken")

    OpaqueRunner.made = []
    monkeypatch.setattr(runner, "EvalRunner", OpaqueRunner)
    monkeypatch.setattr(OpaqueRunner, "run_eval", fail)
    assert await EvalCommand()._run_async(arguments()) == 1
    assert capsys.readouterr().err == "Error during evaluation: broken\n"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"mcp": "dir"}, "--module and --mcp are mutually exclusive; give one of them."),
        ({"module": None}, "Either --module or --mcp is required."),
        ({"n_runs": 0, "batch_size": 0}, "--n must be >= 1."),
        ({"batch_size": 0}, "--batch-size must be >= 1."),
        ({"max_turns": 0}, "--max-turns must be >= 1."),
        ({"offset": -1}, "--offset must be >= 0."),
        ({"limit": 0}, "--limit must be >= 1."),
        ({"baseline_base_url": "u"}, "--baseline-base-url requires --baseline-model."),
        ({"baseline_api_key": "k"}, "--baseline-api-key requires --baseline-model."),
        ({"baseline_api_key": "k", "baseline_model": "m"}, None),
    ],
)
def test_arguments_are_checked_first_hit_first(given: dict[str, Any], sentence: str | None) -> None:
    assert EvalCommand()._validate_args(arguments(**given)) == sentence


async def test_a_stand_in_model_is_enough_for_a_whole_evaluation(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "create_llm_client", lambda **options: (ArithmeticPolicy(), None))
    assert await EvalCommand()._run_async(arguments(quiet=False)) == 0
    out = capsys.readouterr().out
    assert "Running evaluation (1 rows)..." in out
    assert "[1/1] OK (" in out
    assert "[m:fn=1.000]" in out


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@127.0.0.1:1/v1?key=secret#x", "http://127.0.0.1:1/v1"),
        ("http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1"),
        ("http://[broken", None),
        (None, None),
    ],
)
async def test_a_url_is_shown_and_kept_without_its_secrets(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    url: str | None,
    shown: str | None,
) -> None:
    monkeypatch.setattr(cli, "create_llm_client", lambda **options: (ArithmeticPolicy(), None))
    output = tmp_path / "r.json"
    assert await EvalCommand()._run_async(arguments(quiet=False, base_url=url, output=str(output))) == 0
    assert json.loads(output.read_text())["config"]["endpoint"] == shown
    assert "secret" not in output.read_text() + capsys.readouterr().out
