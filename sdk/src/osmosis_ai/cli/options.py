"""The options of the commands, each stated once: flags, value, bounds, help.

A command is a function whose signature takes its options from here; what only one command has stands in its signature.
The same flag has the same meaning, default and help in every command, but for `EXCEPTIONS` of the test of this table.
"""

from typing import Annotated

import typer

from osmosis_ai.rollout.core.user_errors import UsageError
from osmosis_ai.rollout.trainer.defaults import SERVER_KEY_VARIABLE

JOURNAL_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_JOURNAL"


def _without_password(where: str | None) -> str | None:
    """Others on this machine can read a command line. Raises ``UsageError``."""
    from urllib.parse import parse_qs, urlsplit

    if where is not None and "://" in where:
        parts = urlsplit(where)
        if parts.password or parse_qs(parts.query).keys() & {"password", "sslpassword"}:
            raise UsageError(
                "A password on the command line can be read by others on this machine: leave it out of --journal, and"
                f" put it into PGPASSFILE or PGPASSWORD, or the whole URL into {JOURNAL_VARIABLE}."
            )
    return where


# What is run.
Module = Annotated[
    str | None,
    typer.Option("--module", "-m", "--agent", metavar="MODULE:ATTR", help="The agent loop, such as server:agent_loop."),
]
Mcp = Annotated[
    str | None,
    typer.Option(
        "--mcp",
        metavar="DIR|URL",
        help="In place of an agent loop: offer the MCP tools of DIR/main.py, or of a server.",
    ),
]
Reward = Annotated[
    str | None,
    typer.Option(
        "--reward",
        metavar="MODULE:FN",
        help="With --mcp: the function that scores answers, in place of a compute_reward of main.py.",
    ),
]
Dataset = Annotated[str, typer.Option("--dataset", "-d", metavar="FILE", help="Rows to run: .jsonl, .csv or .parquet.")]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="TARGET=COLUMN,...",
        help="Where prompt and truth are, as in user_prompt=question,ground_truth=answer; :json behind reads JSON.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Run nothing if a row cannot be used or scored.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Take at most this many rows.")]
Offset = Annotated[int, typer.Option("--offset", min=0, help="Skip this many rows.")]
Repeat = Annotated[int, typer.Option("--repeat", "--n", min=1, help="Runs of each row; with several, eval has pass@k.")]
Concurrency = Annotated[
    int, typer.Option("--concurrency", "--batch-size", min=1, help="Runs under way at a time; they share the agent.")
]
MaxTurns = Annotated[int, typer.Option("--max-turns", min=1, help="Model calls a run may make.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", min=1, help="Tokens of one reply.")]
Temperature = Annotated[float | None, typer.Option("--temperature", min=0, help="Sampling temperature.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, metavar="SECONDS", help="Time limit of one run.")]
# Of eval alone: nothing else draws at random here.
Seed = Annotated[int, typer.Option("--seed", help="Seed of the comparison's permutation test.")]
PassThreshold = Annotated[float, typer.Option("--pass-threshold", help="Score from which a run passes.")]

# The model.
_MODEL = (
    "A model of OpenAI, provider/model for others, any name with --base-url, or builtin/arithmetic, a script that needs"
    " no key."
)
_MODEL_KEY = (
    "The model's key: - reads it from standard input, @FILE from a file. On the command line others on this machine can"
    " read it: prefer the provider's environment variable."
)
Model = Annotated[str, typer.Option("--model", help=_MODEL)]
ModelKey = Annotated[str | None, typer.Option("--api-key", "--model-api-key", metavar="KEY", help=_MODEL_KEY)]
# Where --api-key is the server's.
OnlyModelKey = Annotated[str | None, typer.Option("--model-api-key", metavar="KEY", help=_MODEL_KEY)]
Policy = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="MODULE:ATTR",
        help="In place of --model: a script of your own, such as a ScriptedPolicy or a function of the messages.",
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", metavar="URL", help="An OpenAI-compatible endpoint, as in http://127.0.0.1:8000/v1."),
]

# The rollout server.
Port = Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Port to serve on; 0 takes a free one.")]
Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        "-H",
        show_default=False,
        help="Address to bind [default: 0.0.0.0; 127.0.0.1 with --local]",
    ),
]
Local = Annotated[bool, typer.Option("--local", "--local-debug", help="Serve this machine only, without a key.")]
ServerKey = Annotated[
    str | None,
    typer.Option(
        "--server-key",
        "--api-key",
        metavar="KEY",
        help="Key a trainer must send. Others on this machine can read it in the process list: prefer the variable"
        f" {SERVER_KEY_VARIABLE}. Without either, one is generated and shown.",
    ),
]
Journal = Annotated[
    str | None,
    typer.Option(
        "--journal",
        metavar="PATH|URL|off",
        callback=_without_password,
        help="Where accepted rollouts are kept: a file, or postgresql://... for several machines"
        f" [default: {JOURNAL_VARIABLE}, else .osmosis/journal.db]",
    ),
]
Log = Annotated[
    str | None,
    typer.Option("--log", metavar="DIR", help="The server writes traces to DIR/<unix time of start>/."),
]

# What comes of it.
Output = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Write results as JSON; line by line beside it (.jsonl) as they come."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the results of -o; failed runs are made again.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Log what the SDK does, and write event files to ./test_debug or ./eval_debug.")
]
