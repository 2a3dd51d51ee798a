"""What the classes of 0.2 offer beside an argparse view."""

from argparse import Namespace
from importlib import import_module
from io import StringIO
from typing import Any

import pytest

from osmosis_ai._compat import eval_common_cli
from osmosis_ai._compat.commands import EvalCommand
from osmosis_ai.rollout.core.console import Console


def arguments(**given: Any) -> Namespace:
    return Namespace(**{"module": "m:agent", "dataset": "d.jsonl", "model": "m", "eval_fns": ["m:fn"], **given})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"mcp": "dir"}, "--module and --mcp are mutually exclusive: give one of them."),
        ({"module": None}, "An agent is required: give --module (-m) module:attribute, or --mcp DIR|URL."),
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


async def test_a_failure_is_printed_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert await EvalCommand()._run_async(arguments(model="builtin/chess")) == 2
    assert await EvalCommand()._run_async(arguments(model="builtin/arithmetic", quiet=True)) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("Error: Invalid model 'builtin/chess'")
    assert second.startswith("Error: Cannot import module 'm'")


def test_a_loader_gives_what_it_loaded_or_a_sentence() -> None:
    assert import_module("osmosis_ai.rollout.eval.common.cli") is eval_common_cli
    console = Console(file=StringIO())
    client, error = eval_common_cli.create_llm_client("builtin/arithmetic", None, None, quiet=True, console=console)
    assert (type(client).__name__, error) == ("ArithmeticPolicy", None)
    assert eval_common_cli.load_dataset_rows(
        dataset_path="gone.jsonl", limit=None, offset=0, quiet=True, console=console, empty_error="", action_label=""
    ) == (None, "Dataset file not found: gone.jsonl")
    agent, error = eval_common_cli.load_agent("no_such_module:agent", quiet=True, console=console)
    assert agent is None
    assert "no_such_module" in str(error)
