"""``osmosis eval``."""

from argparse import Namespace
from typing import Annotated

import typer


def eval_(
    dataset: Annotated[
        str, typer.Option("--dataset", "-d", metavar="FILE", help="Rows to run: .jsonl, .csv or .parquet.")
    ],
    model: Annotated[
        str,
        typer.Option("--model", help="The model: name, provider/name, any name with --base-url, builtin/arithmetic."),
    ],
    eval_fns: Annotated[
        list[str],
        typer.Option("--eval-fn", metavar="MODULE:FN", help="A function that scores a run; may be repeated."),
    ],
    module: Annotated[
        str | None,
        typer.Option("--module", "-m", metavar="MODULE:ATTR", help="The agent loop, such as server:agent_loop."),
    ] = None,
    mcp: Annotated[
        str | None, typer.Option("--mcp", metavar="DIR", help="A directory of MCP tools, instead of --module.")
    ] = None,
    n_runs: Annotated[int, typer.Option("--n", help="Runs of each row; with more than one, pass@k.")] = 1,
    pass_threshold: Annotated[float, typer.Option("--pass-threshold", help="Score from which a run passes.")] = 1.0,
    batch_size: Annotated[int, typer.Option("--batch-size", "--concurrency", help="Runs under way at a time.")] = 1,
    baseline_model: Annotated[
        str | None, typer.Option("--baseline-model", "--baseline", metavar="MODEL", help="A model to compare with.")
    ] = None,
    baseline_base_url: Annotated[
        str | None, typer.Option("--baseline-base-url", metavar="URL", help="Its endpoint.")
    ] = None,
    baseline_api_key: Annotated[
        str | None, typer.Option("--baseline-api-key", metavar="KEY", help="Its key; as --api-key.")
    ] = None,
    max_turns: Annotated[int, typer.Option("--max-turns", help="Model calls a run may make.")] = 10,
    temperature: Annotated[float | None, typer.Option("--temperature", help="Sampling temperature.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Tokens of one reply.")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            help="The model's key: better in its environment variable; '-' reads a line of standard input, @FILE a"
            " file.",
        ),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", metavar="URL", help="An OpenAI-compatible endpoint, up to /v1.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Evaluate at most this many rows.")] = None,
    offset: Annotated[int, typer.Option("--offset", help="Skip this many rows.")] = 0,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0.001, metavar="SECONDS", help="Time limit of one run.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Results as JSON; runs stream to a .jsonl beside it."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the results of -o; failed runs are made again.")
    ] = False,
    reports: Annotated[
        list[str] | None,
        typer.Option("--report", metavar="FILE", help="Report as .md or .html, with plots; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON and nothing else.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the comparison's permutation test.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Log what the SDK does, and write event files to ./eval_debug.")
    ] = False,
) -> int:
    """Run an agent on a dataset, score every run and report pass@k, means, latency and tokens."""
    arguments = Namespace(**locals())
    from osmosis_ai.rollout.run.evaluate.cli import EvalCommand

    return EvalCommand().run(arguments)
