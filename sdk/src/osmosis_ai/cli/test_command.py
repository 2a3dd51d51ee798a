"""``osmosis test``: an agent on a dataset, without a trainer."""

# ruff: noqa: PT028 - the function is a command, no test for pytest

from typing import Annotated

import typer

from osmosis_ai.cli import options as table
from osmosis_ai.rollout.run import defaults


def test(
    dataset: table.Dataset,
    module: table.Module = None,
    mcp: table.Mcp = None,
    reward: table.Reward = None,
    model: table.Model = defaults.MODEL,
    policy: table.Policy = None,
    columns: table.Columns = None,
    strict: table.Strict = False,
    limit: table.Limit = None,
    offset: table.Offset = 0,
    api_key: table.ModelKey = None,
    base_url: table.BaseUrl = None,
    max_turns: table.MaxTurns = defaults.MAX_TURNS,
    max_tokens: table.MaxTokens = None,
    temperature: table.Temperature = None,
    concurrency: table.Concurrency = defaults.CONCURRENCY,
    repeat: table.Repeat = 1,
    timeout: table.Timeout = defaults.RUN_TIMEOUT_SECONDS,
    output: table.Output = None,
    resume: table.Resume = False,
    min_reward: Annotated[
        float | None, typer.Option("--min-reward", metavar="X", help="Exit with 1 if the mean reward is below X.")
    ] = None,
    as_json: table.AsJson = False,
    quiet: table.Quiet = False,
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Step through rows one by one.")] = False,
    row: Annotated[
        int | None, typer.Option("--row", metavar="N", min=0, help="With -i: start with this row; the first is 0.")
    ] = None,
    debug: table.Debug = False,
) -> int:
    """Run an agent on a dataset against any model, without a trainer."""
    given = locals()
    import asyncio

    from osmosis_ai.rollout.run.test.command import run_test
    from osmosis_ai.rollout.run.test.options import Options

    return asyncio.run(run_test(Options(**given)))


test.__test__ = False  # type: ignore[attr-defined]  # a command, whatever pytest thinks of its name
