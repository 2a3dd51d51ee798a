"""``osmosis rescore``: rewards anew on saved runs, without a model.

Exit codes: 0 done, 1 nothing could be rescored or the function failed on a run, 2 usage, 130 interrupted.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from osmosis_ai.cli import options as table
from osmosis_ai.rollout.core.text import one_line
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError

if TYPE_CHECKING:
    from osmosis_ai.rollout.run.evaluate.rescoring import Rescored, RescoringReport

MAX_LISTED_RUNS = 20
MAX_LISTED_PROBLEMS = 5

_EXPLANATIONS = {
    "no_reward": "got no reward",
    "function_failed": "made the function fail",
    "not_rescorable": "cannot be rescored",
}


def rescore(
    path: Annotated[
        Path, typer.Argument(metavar="FOLDER_OR_FILE", help="A results file of trainer, test or eval, or traces.")
    ],
    module: Annotated[
        str,
        typer.Option("--module", "-m", metavar="MODULE:ATTR", help="The function, such as rewards:compute_reward."),
    ],
    dataset: Annotated[
        Path | None,
        typer.Option(
            "--dataset", "-d", metavar="FILE", help="Where ground truths are; by default where the results say."
        ),
    ] = None,
    columns: table.Columns = None,
    pass_threshold: table.PassThreshold = 1.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write every run, before and after, as JSON.")
    ] = None,
    as_json: table.AsJson = False,
    quiet: table.Quiet = False,
) -> int:
    """Compute rewards anew on saved runs, without a model, and show what changed."""
    import asyncio
    import json

    from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
    from osmosis_ai.rollout.core.files import write_whole
    from osmosis_ai.rollout.core.json_document import write_document
    from osmosis_ai.rollout.run.evaluate.eval_fn import load_eval_fns
    from osmosis_ai.rollout.run.evaluate.rescoring import GroundTruths, as_json as run_as_json, rescore as compute
    from osmosis_ai.rollout.run.loading import open_dataset
    from osmosis_ai.rollout.run.results.saved_runs import read_saved_runs, recorded_dataset

    if not path.exists():
        raise UsageError(f"{path} does not exist: name a results file or a folder of traces.")
    [reward_fn] = load_eval_fns([module])
    recorded = recorded_dataset(path) if dataset is None and reward_fn.takes("ground_truth") else None
    source, recorded_columns = (dataset, None) if recorded is None else recorded
    ground_truths = None if source is None else GroundTruths(open_dataset(source, columns or recorded_columns))
    report = asyncio.run(compute(read_saved_runs(path), reward_fn, ground_truths, pass_threshold))
    if not report.runs:
        raise CLIError(f"{path} holds no runs.")
    settings = {"source": str(path), "module": module, "dataset": dataset and str(dataset), "columns": columns}
    document = {
        "summary": report.summary(),
        "config": {"sdk_version": PACKAGE_VERSION, **settings},
        "results": [run_as_json(run) for run in report.runs],
    }
    if output is not None:
        write_whole(output, [json.dumps(document, indent=2), "\n"])
    if as_json:
        write_document([json.dumps(document, indent=2), "\n"])
    elif not quiet:
        _print(report, output)
    summary = report.summary()
    return 1 if summary["function_failed"] or not (summary["rescored"] or summary["no_reward"]) else 0


def _print(report: "RescoringReport", output: Path | None) -> None:
    from osmosis_ai.rollout.core.console import Console
    from osmosis_ai.rollout.core.text import counted, printable
    from osmosis_ai.rollout.run.formats import format_number
    from osmosis_ai.rollout.run.loading import speaker

    say = speaker(Console(), is_silent=False)
    summary = report.summary()
    say(f"Runs: {summary['runs']}, rescored: {summary['rescored']}")
    for verdict, explanation in _EXPLANATIONS.items():
        if count := summary[verdict]:
            say(f"  {count} {explanation}")
            same = [problem for problem in summary["errors"] if problem["kind"] == verdict]
            for problem in same[:MAX_LISTED_PROBLEMS]:
                say(f"    {problem['count']} x {problem['text']}")
            if len(same) > MAX_LISTED_PROBLEMS:
                say(f"    {len(same) - MAX_LISTED_PROBLEMS} more kinds are not shown.")
    if summary["compared"]:
        before, after = summary["mean_reward_before"], summary["mean_reward"]
        runs = counted(summary["compared"], "run")
        shown = f"{format_number(before, 3)} before, {format_number(after, 3)} after"
        say(f"Mean reward: {shown} ({format_number(after - before, 3, '+')}, {runs})")
    for name, after in report.components_after.items():
        before = f"{known} before, " if (known := report.components_before.get(name)) else ""
        say(f"  {printable(name)}: {before}{after} after")
    flips = f"{summary['now_pass']} now pass, {summary['now_fail']} now fail"
    come_and_go = f"{summary['gained_reward']} gained a reward, {summary['lost_reward']} lost it"
    say(f"Changed: {summary['changed']} ({flips}; {come_and_go})")
    changed = report.changed
    for run in changed[:MAX_LISTED_RUNS]:
        say(f"  {_place(run)}: {_shown(run.reward_before)} -> {_shown(run.reward_after)}")
    if len(changed) > MAX_LISTED_RUNS:
        say(f"  {len(changed) - MAX_LISTED_RUNS} more are not shown; -o FILE has them all.")
    if output is not None:
        say(f"Results written to: {output}")


def _place(run: "Rescored") -> str:
    if run.row_index is None:
        return one_line(run.rollout_id or run.source)
    place = f"row {run.row_index}" + (f", run {run.repeat}" if run.repeat else "")
    return f"{place}, {one_line(run.rollout_id)}" if run.rollout_id else place


def _shown(reward: float | None) -> str:
    return "none" if reward is None else f"{reward:g}"
