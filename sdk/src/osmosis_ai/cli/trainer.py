"""``osmosis trainer``: drives a rollout server from the trainer's side, with a script or a model."""

from typing import Annotated

import typer

from osmosis_ai.cli import options as table
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError
from osmosis_ai.rollout.trainer import defaults


def trainer(
    dataset: table.Dataset,
    module: table.Module = None,
    mcp: table.Mcp = None,
    reward: table.Reward = None,
    server: Annotated[
        str | None, typer.Option("--server", metavar="URL", help="Use the rollout server at this address.")
    ] = None,
    concurrency: table.Concurrency = defaults.CONCURRENCY,
    repeat: table.Repeat = 1,
    columns: table.Columns = None,
    strict: table.Strict = False,
    limit: table.Limit = None,
    offset: table.Offset = 0,
    max_turns: table.MaxTurns = defaults.MAX_TURNS,
    max_tokens_total: Annotated[
        int, typer.Option("--max-tokens-total", min=1, help="Tokens a rollout may use.")
    ] = defaults.MAX_TOKENS_TOTAL,
    temperature: table.Temperature = None,
    max_tokens: table.MaxTokens = None,
    server_key: Annotated[
        str | None,
        typer.Option(
            "--server-key",
            metavar="KEY",
            envvar=defaults.SERVER_KEY_VARIABLE,
            show_envvar=True,
            help="Key of the server at --server.",
        ),
    ] = None,
    old_server_key: Annotated[
        str | None, typer.Option("--api-key", metavar="KEY", hidden=True, help="The old name of --server-key.")
    ] = None,
    model: table.Model = defaults.MODEL,
    policy: table.Policy = None,
    base_url: table.BaseUrl = None,
    api_key: table.OnlyModelKey = None,
    timeout: table.Timeout = defaults.ROLLOUT_TIMEOUT_SECONDS,
    output: table.Output = None,
    resume: table.Resume = False,
    as_json: table.AsJson = False,
    quiet: table.Quiet = False,
    host: Annotated[
        str, typer.Option("--host", help="Interface that the callbacks are served on.")
    ] = defaults.CALLBACK_HOST,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="Port of the callbacks; 0 means any free one.")
    ] = 0,
    callback_url: Annotated[
        str | None,
        typer.Option("--callback-url", metavar="URL", help="The callbacks' address as the server sees it."),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol", metavar="0.2|0.3", help="Generation of the protocol that the server is spoken to in."
        ),
    ] = defaults.PROTOCOL,
    log: table.Log = None,
    server_log: Annotated[
        str | None,
        typer.Option("--server-log", metavar="FILE", help="Append all that the started server writes to FILE."),
    ] = None,
) -> int:
    """Run every row of a dataset as a rollout, over HTTP, with a script or a model in the trainer's place."""
    given = locals()
    old_key = given.pop("old_server_key")
    if old_key is not None and policy is None and model != defaults.MODEL:  # the model's would go to the server
        raise UsageError("--api-key may mean the server's key or the model's: write --server-key or --model-api-key.")
    try:
        from osmosis_ai.rollout.run.train.command import run_trainer
        from osmosis_ai.rollout.run.train.options import Options
    except ImportError as error:
        raise CLIError(f"The trainer needs the package {error.name}: install 'osmosis-ai[server]'.") from error
    return run_trainer(Options(**{**given, "server_key": server_key if old_key is None else old_key}))
