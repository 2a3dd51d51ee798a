"""``osmosis test``."""

# ruff: noqa: PT028 - the function is a command, no test for pytest

from types import SimpleNamespace
from typing import Annotated

import typer

from osmosis_ai.rollout.run.test import defaults


def test(
    dataset: Annotated[str, typer.Option("--dataset", "-d", metavar="FILE", help="Rows: .jsonl, .csv or .parquet.")],
    module: Annotated[
        str | None,
        typer.Option(
            "--module", "-m", "--agent", metavar="MODULE:ATTR", help="The agent loop, such as server:agent_loop."
        ),
    ] = None,
    mcp: Annotated[
        str | None, typer.Option("--mcp", metavar="DIR", help="Instead of an agent loop: a directory of MCP tools.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="A model of OpenAI, provider/model for others, any name with --base-url, or builtin/arithmetic, a"
            " script that needs no key.",
        ),
    ] = defaults.MODEL,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Run at most this many rows.")] = None,
    offset: Annotated[int, typer.Option("--offset", min=0, help="Skip this many rows.")] = 0,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            help="Key of the provider: - reads it from standard input, @FILE from a file. On the command line others on"
            " this machine can read it: prefer the provider's environment variable.",
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            "--base-url", metavar="URL", help="An OpenAI-compatible endpoint, as in http://127.0.0.1:8000/v1."
        ),
    ] = None,
    max_turns: Annotated[
        int, typer.Option("--max-turns", min=1, help="Model calls a run may make.")
    ] = defaults.MAX_TURNS,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Tokens of one reply.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0, help="Sampling temperature.")] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, help="Runs at a time; they share the agent loop.")
    ] = defaults.CONCURRENCY,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Runs of each row.")] = 1,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.001, metavar="SECONDS", help="Time limit of one run.")
    ] = defaults.ROW_TIMEOUT_SECONDS,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write results as JSON; line by line beside it (.jsonl) as they come.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the results of -o; failed runs are made again.")
    ] = False,
    min_reward: Annotated[
        float | None, typer.Option("--min-reward", metavar="X", help="Exit with 1 if the mean reward is below X.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Step through rows one by one.")] = False,
    row: Annotated[
        int | None, typer.Option("--row", metavar="N", min=0, help="With -i: start with this row; the first is 0.")
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Log what the SDK does, and write event files to ./test_debug.")
    ] = False,
) -> int:
    """Run an agent on a dataset against any model, without a trainer."""
    arguments = SimpleNamespace(**locals())
    from osmosis_ai.rollout.run.test.cli import TestCommand

    return TestCommand().run(arguments)


test.__test__ = False  # type: ignore[attr-defined]  # a command, whatever pytest thinks of its name
