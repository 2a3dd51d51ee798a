"""``osmosis traces export``: traces as data for fine-tuning.

Exit codes: 0 done, 1 nothing was exported, 2 usage.
"""

import json
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from osmosis_ai.cli import options as table
from osmosis_ai.rollout.core.user_errors import UsageError

if TYPE_CHECKING:
    from osmosis_ai.rollout.observe.traces.export import Export
    from osmosis_ai.rollout.observe.traces.index import TraceIndex

HELP = "Work with traces, as serve --log writes them."


def export(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of traces, or one trace.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; standard output by default.")
    ] = None,
    min_reward: Annotated[float | None, typer.Option("--min-reward", help="Only rewards from here up.")] = None,
    max_reward: Annotated[float | None, typer.Option("--max-reward", help="Only rewards up to here.")] = None,
    outcomes: Annotated[
        list[str] | None, typer.Option("--outcome", metavar="NAME", help="Only this outcome; may be repeated.")
    ] = None,
    status: Annotated[str, typer.Option("--status", metavar="STATUS", help="COMPLETED, ERROR, or any.")] = "COMPLETED",
    rows: Annotated[
        bool, typer.Option("--rows", help="Training rows too: token ids, mask and log-probabilities as sampled.")
    ] = False,
    as_json: table.AsJson = False,
) -> int:
    """Write rollouts as OpenAI-style fine-tuning data, one {"messages": ..., "tools": ...} a line, nothing lost."""
    from osmosis_ai.rollout.core.results import Outcome
    from osmosis_ai.rollout.core.text import counted, one_line
    from osmosis_ai.rollout.observe.traces.export import Export, Filter

    for outcome in outcomes or ():
        if outcome not in set(Outcome):
            raise UsageError(f"--outcome is one of {', '.join(Outcome)}, not {outcome!r}.")
    if min_reward is not None and max_reward is not None and min_reward > max_reward:
        raise UsageError(f"--min-reward {min_reward:g} is above --max-reward {max_reward:g}: nothing can be between.")
    if status.upper() not in ("COMPLETED", "ERROR", "ANY"):
        raise UsageError(f"--status is COMPLETED, ERROR or any, not {status!r}.")
    if as_json and output is None:
        raise UsageError("--json tells of the file that --output writes.")
    index = index_of(path)
    index.refresh()
    statuses = () if status.upper() == "ANY" else (status.upper(),)
    job = Export(index, Filter(min_reward, max_reward, statuses, tuple(outcomes or ())))
    if rows:
        job.also = _rows_of
    _write(job, output)
    if as_json:
        from osmosis_ai.rollout.core.json_document import write_document

        told = {
            "written": job.written,
            "rollouts": len(index.rollouts),
            "left_out": dict(job.left_out.most_common()),
            "left_out_for_example": job.example_of,
            "unreadable_files": index.unreadable_files,
        }
        write_document([json.dumps(told, indent=2), "\n"])
        return 0 if job.written else 1
    left_out = ", ".join(f"{count} {reason}" for reason, count in job.left_out.most_common())
    where = "" if output is None else f" to {output}"
    print(  # noqa: T201 - beside the data, which may be on stdout
        f"{job.written:,} of {counted(len(index.rollouts), 'rollout')} exported{where}"
        + (f"; left out: {left_out}" if left_out else "")
        + (f"; not read: {counted(index.unreadable_files, 'file')}" if index.unreadable_files else "")
        + "."
        + "".join(f"\n  {reason}: {one_line(example)}" for reason, example in job.example_of.items()),
        file=sys.stderr,
    )
    return 0 if job.written else 1


def _rows_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    from dataclasses import asdict

    from osmosis_ai.rollout.observe.traces.export import NotExportedError
    from osmosis_ai.rollout.trainer.errors import TokensError
    from osmosis_ai.rollout.trainer.tokens import training_rows, turns_of_trace

    try:
        rows = training_rows(turns_of_trace(events))
    except TokensError as error:
        raise NotExportedError(error.reason, str(error)) from error
    return {"rows": [asdict(row) for row in rows]}


def index_of(path: Path, *, keep: bool = False) -> "TraceIndex":
    """The traces at ``path``, which has to be there; ``keep`` keeps beside them what is read."""
    from osmosis_ai.rollout.observe.traces.index import TraceIndex

    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path} does not exist: name the folder that osmosis serve --log writes to.") from None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}): name the folder of the traces, or one trace."
        ) from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise UsageError(f"{path} is neither a folder nor a regular file: name the folder of the traces, or one trace.")
    return TraceIndex(path, keep=keep)


def _write(job: "Export", output: Path | None) -> None:
    from pydantic_core import to_json

    from osmosis_ai.rollout.core.files import write_whole

    lines = (to_json(example) + b"\n" for example in job.examples())
    if output is not None:
        write_whole(output, lines)
        return
    sys.stdout.buffer.writelines(lines)
    sys.stdout.buffer.flush()


COMMANDS = {"export": export}
