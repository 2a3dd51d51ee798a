"""The command as a function of the library, with stand-ins for what it loads."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.rollouts import ScriptedAgent, chat_once

from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.run import loading
from osmosis_ai.rollout.run.evaluate import command
from osmosis_ai.rollout.run.evaluate.command import run_eval
from osmosis_ai.rollout.run.evaluate.eval_fn import EvalFnWrapper
from osmosis_ai.rollout.run.evaluate.eval_runner import EvalRunner
from osmosis_ai.rollout.run.evaluate.options import Options
from osmosis_ai.rollout.run.policies import ArithmeticPolicy

ROW = {"ground_truth": "3", "user_prompt": "What is 1 + 2?", "system_prompt": "s"}


class Client(ArithmeticPolicy):
    """A model that counts how often it is closed."""

    closed = 0

    async def close(self) -> None:
        self.closed += 1


def options(**given: Any) -> Options:
    return Options(
        **{
            "module": "m:agent",
            "dataset": "d.jsonl",
            "model": "m",
            "eval_fns": ["m:fn"],
            "quiet": True,
            **given,
        }
    )


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Client:
    """What every part but the network gives to the command."""
    client = Client()
    wrapper = EvalFnWrapper(lambda solution_str: 1.0, "m:fn")
    monkeypatch.setattr(loading, "create_llm_client", lambda *arguments: client)
    monkeypatch.setattr(loading, "load_agent", lambda *arguments: ScriptedAgent(chat_once))
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW))
    dataset = loading.Dataset(loading.open_dataset(path), None, 0, 1)
    monkeypatch.setattr(loading, "check_dataset", lambda *arguments: dataset)
    monkeypatch.setattr(command, "load_eval_fns", lambda paths: [wrapper])
    return client


async def refuse(*arguments: Any) -> None:
    raise CLIError("refused")


async def test_the_client_is_closed_whatever_happens(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await run_eval(options()) == 0
    assert client.closed == 1
    monkeypatch.setattr(loading, "verify_llm_client", refuse)
    with pytest.raises(CLIError, match="refused"):
        await run_eval(options())
    assert client.closed == 2


async def test_what_is_wrong_with_the_baseline_is_told_as_that(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model: str, *arguments: Any) -> Client:
        if model == "base":
            raise CLIError("no such model")
        return client

    monkeypatch.setattr(loading, "create_llm_client", load)
    with pytest.raises(CLIError, match=r"^Error \(baseline\): no such model$"):
        await run_eval(options(baseline_model="base"))
    assert client.closed == 1


async def test_the_network_is_the_last_to_be_asked(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(paths: list[str]) -> list[EvalFnWrapper]:
        raise CLIError("no such function")

    monkeypatch.setattr(loading, "verify_llm_client", refuse)
    monkeypatch.setattr(command, "load_eval_fns", load)
    with pytest.raises(CLIError, match="no such function"):
        await run_eval(options())


async def test_an_exception_while_running_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: EvalRunner, **options: Any) -> object:
        raise RuntimeError("broken")

    monkeypatch.setattr(EvalRunner, "run_eval", fail)
    with pytest.raises(CLIError, match=r"^Error during evaluation: broken$"):
        await run_eval(options())


async def test_a_stand_in_model_is_enough_for_a_whole_evaluation(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run_eval(options(quiet=False)) == 0
    out = capsys.readouterr().out
    assert "Running evaluation (1 row)..." in out
    assert re.search(
        r"^\[1/1\] Row 0: OK \([\d.ms]+, [\d,]+ tokens\) (reward .+, )?m:fn 1\.00, \d+ turns?, \d+ tool calls?$",
        out,
        re.M,
    )


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
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    url: str | None,
    shown: str | None,
) -> None:
    output = tmp_path / "r.json"
    assert await run_eval(options(quiet=False, base_url=url, output=str(output))) == 0
    assert json.loads(output.read_text())["config"]["endpoint"] == shown
    assert "secret" not in output.read_text() + capsys.readouterr().out
