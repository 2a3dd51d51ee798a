"""``osmosis eval``: what an agent is worth on a dataset, in numbers."""

from typing import Annotated

import typer

from osmosis_ai.cli import options as table
from osmosis_ai.rollout.run import defaults


def eval_(
    dataset: table.Dataset,
    module: table.Module = None,
    mcp: table.Mcp = None,
    reward: table.Reward = None,
    model: table.Model = "",
    policy: table.Policy = None,
    eval_fns: Annotated[
        list[str] | None,
        typer.Option(
            "--eval-fn",
            metavar="MODULE:FN",
            help="A function that scores a run, for the agent's reward; may be repeated.",
        ),
    ] = None,
    n_runs: table.Repeat = 1,
    pass_threshold: table.PassThreshold = 1.0,
    score_range: Annotated[
        str | None,
        typer.Option(
            "--score-range",
            metavar="LOW,HIGH",
            help="What every score lies in: intervals stay there [default: 0,1 unless a score is beyond]",
        ),
    ] = None,
    batch_size: table.Concurrency = defaults.CONCURRENCY,
    baseline_model: Annotated[
        str | None, typer.Option("--baseline-model", "--baseline", metavar="MODEL", help="A model to compare with.")
    ] = None,
    baseline_base_url: Annotated[
        str | None, typer.Option("--baseline-base-url", metavar="URL", help="Its endpoint.")
    ] = None,
    baseline_api_key: Annotated[
        str | None, typer.Option("--baseline-api-key", metavar="KEY", help="Its key; as --api-key.")
    ] = None,
    max_turns: table.MaxTurns = defaults.MAX_TURNS,
    temperature: table.Temperature = None,
    max_tokens: table.MaxTokens = None,
    api_key: table.ModelKey = None,
    base_url: table.BaseUrl = None,
    columns: table.Columns = None,
    strict: table.Strict = False,
    limit: table.Limit = None,
    offset: table.Offset = 0,
    timeout: table.Timeout = defaults.RUN_TIMEOUT_SECONDS,
    output: table.Output = None,
    resume: table.Resume = False,
    reports: Annotated[
        list[str] | None,
        typer.Option("--report", metavar="FILE", help="Report as .md or .html, with plots; may be repeated."),
    ] = None,
    as_json: table.AsJson = False,
    seed: table.Seed = 0,
    quiet: table.Quiet = False,
    debug: table.Debug = False,
) -> int:
    """Run an agent on a dataset, score every run and report pass@k, means, latency and tokens.

    Two files that -o wrote are compared by: osmosis eval compare A.json B.json
    """
    given = locals()
    import asyncio

    from osmosis_ai.rollout.run.evaluate.command import run_eval
    from osmosis_ai.rollout.run.evaluate.options import Options

    return asyncio.run(run_eval(Options(**given)))
