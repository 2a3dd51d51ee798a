"""``osmosis eval``: loads, runs, reports. Local checks come first, the network last, files whole or not at all.

Exit codes: 0 the evaluation ran to its end, 1 it could not, or every run of a model failed, or it stopped early, or
every score was an error; 2 usage, 130 interrupted (with a report of what there is).
"""

import asyncio
import contextlib
import json
import logging
import sys
import time
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.core.text import fitted
from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.run.common_cli import (
    build_completion_params,
    create_llm_client,
    format_duration,
    format_tokens,
    load_agent,
    load_dataset_rows,
    load_mcp_agent,
    read_api_key,
    verify_llm_client,
)
from osmosis_ai.rollout.run.driver import Plan
from osmosis_ai.rollout.run.evaluate.documents import render
from osmosis_ai.rollout.run.evaluate.eval_fn import EvalFnError, EvalFnWrapper, load_eval_fns
from osmosis_ai.rollout.run.evaluate.options import Arguments, config_of, inputs_of, without_secrets
from osmosis_ai.rollout.run.evaluate.records import by_row, overview, record_of, run_of
from osmosis_ai.rollout.run.evaluate.report import format_eval_report
from osmosis_ai.rollout.run.evaluate.statistics import DEFAULT_SEED
from osmosis_ai.rollout.run.evaluate.types import BASELINE, PRIMARY, EvalResult, EvalRunResult
from osmosis_ai.rollout.run.models.models import close_quietly
from osmosis_ai.rollout.run.results.results_file import LINES_SUFFIX, ResultsFile, check_writable

__all__ = ["EvalCommand"]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
DEBUG_PARENT = "./eval_debug"
MAX_ERROR_CHARACTERS = 50
INTERRUPTED = "interrupted"


@dataclass
class _Plan:
    """Everything a run needs, loaded and checked."""

    agent: Any
    rows: list[Any]
    eval_fns: list[EvalFnWrapper]
    client: Any
    baseline_client: Any = None


class _Failure(Exception):  # noqa: N818 - it carries a sentence to the top
    """Why the command cannot go on; the sentence is printed as it is."""


class EvalCommand:
    """The command, for ``osmosis`` and for an argparse program of one's own."""

    def __init__(self) -> None:
        self.console = Console()

    def configure_parser(self, parser: ArgumentParser) -> None:
        """Add the command's arguments, and the default ``handler``: namespace to exit code."""
        from osmosis_ai._compat.parser import configure

        configure(parser, "eval")
        parser.set_defaults(handler=self.run)

    def run(self, args: Namespace) -> int:
        """Run the command; an argument that ``args`` lacks takes its default."""
        try:
            return asyncio.run(self._run_async(args))
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED

    def _validate_args(self, args: Namespace) -> str | None:
        module, mcp = getattr(args, "module", None), getattr(args, "mcp", None)
        checks = (
            (module and mcp, "--module and --mcp are mutually exclusive; give one of them."),
            (not module and not mcp, "Either --module or --mcp is required."),
            (getattr(args, "n_runs", 1) < 1, "--n must be >= 1."),
            (getattr(args, "batch_size", 1) < 1, "--batch-size must be >= 1."),
            (getattr(args, "max_turns", 10) < 1, "--max-turns must be >= 1."),
            (getattr(args, "offset", 0) < 0, "--offset must be >= 0."),
            ((limit := getattr(args, "limit", None)) is not None and limit < 1, "--limit must be >= 1."),
            (
                getattr(args, "resume", False) and not getattr(args, "output", None),
                "--resume needs -o FILE: the results of the run to go on with.",
            ),
        )
        for is_wrong, message in checks:
            if is_wrong:
                return message
        if not getattr(args, "baseline_model", None):
            for flag in ("baseline_base_url", "baseline_api_key"):
                if getattr(args, flag, None):
                    return f"--{flag.replace('_', '-')} requires --baseline-model."
        return None

    async def _run_async(self, args: Namespace) -> int:
        if (problem := self._validate_args(args)) is not None:
            return self._fail(f"Error: {problem}")
        args = Arguments(args)
        try:
            async with contextlib.AsyncExitStack() as clients:
                self._print_header(args)
                plan = await self._load(args, clients)
                return await self._evaluate(args, plan)
        except _Failure as failure:
            return self._fail(str(failure))
        except CLIError as error:
            return self._fail(f"Error: {error}")

    async def _load(self, args: Arguments, clients: contextlib.AsyncExitStack) -> _Plan:
        reports = [Path(report) for report in args.reports or ()]
        for report in reports:
            if report.suffix.lower() not in (".md", ".html", ".htm"):
                raise CLIError(f"--report {report}: the suffix says the format; use .md or .html.")
            check_writable(report)
        if args.output:
            _check_output(Path(args.output))
        client = await self._client(args, clients, "Error", args.model, args.api_key, args.base_url)
        agent, error = (
            load_mcp_agent(mcp_path=args.mcp, quiet=args.quiet, console=self.console)
            if args.mcp
            else load_agent(module=args.module, quiet=args.quiet, console=self.console)
        )
        _require(error)
        rows, error = load_dataset_rows(
            dataset_path=args.dataset,
            limit=args.limit,
            offset=args.offset,
            quiet=args.quiet,
            console=self.console,
            empty_error="No rows to evaluate",
            action_label="evaluating",
        )
        _require(error)
        eval_fns, error = self._load_eval_fns(args)
        _require(error)
        plan = _Plan(agent, rows or [], eval_fns or [], client)
        if args.baseline_model:
            plan.baseline_client = await self._client(
                args,
                clients,
                "Error (baseline)",
                args.baseline_model,
                args.baseline_api_key,
                args.baseline_base_url,
            )
        for label, each in (("Error", client), ("Error (baseline)", plan.baseline_client)):
            if each is not None:
                _require(await verify_llm_client(each, args.quiet, self.console), label)
        return plan

    async def _client(
        self,
        args: Arguments,
        clients: contextlib.AsyncExitStack,
        label: str,
        model: str,
        api_key: str | None,
        base_url: str | None,
    ) -> Any:
        client, error = create_llm_client(
            model=model, api_key=read_api_key(api_key), base_url=base_url, quiet=args.quiet, console=self.console
        )
        if client is not None:
            clients.push_async_callback(close_quietly, client)
        _require(error, label)
        return client

    def _load_eval_fns(self, args: Namespace) -> tuple[list[EvalFnWrapper] | None, str | None]:
        paths = list(getattr(args, "eval_fns", None) or [])
        quiet = getattr(args, "quiet", False)
        self._say(quiet, f"Loading eval functions: {', '.join(paths)}")
        try:
            eval_fns = load_eval_fns(paths)
        except EvalFnError as error:
            return None, str(error)
        for eval_fn in eval_fns:
            self._say(quiet, f"  {eval_fn.name} ({eval_fn._mode} mode)")
        return eval_fns, None

    async def _evaluate(self, args: Arguments, plan: _Plan) -> int:
        from osmosis_ai.rollout.run.evaluate.runner import EvalRunner

        config = config_of(args, plan.agent, len(plan.rows), [eval_fn.name for eval_fn in plan.eval_fns])
        debug_dir = _new_debug_directory(args.debug)
        if debug_dir is not None:
            self._say(args.quiet, f"Event files: {debug_dir}/")
        options = {"timeout_seconds": args.timeout} if args.timeout is not None else {}
        options |= {"seed": args.seed} if args.seed != DEFAULT_SEED else {}
        plan_of_runs = Plan(args.offset, args.n_runs, (PRIMARY, BASELINE) if plan.baseline_client else (None,))
        with contextlib.ExitStack() as stack:
            results = None
            if args.output:
                results = stack.enter_context(
                    ResultsFile(
                        Path(args.output), "eval", plan_of_runs, inputs_of(args), config, resume=bool(args.resume)
                    )
                )
            earlier = {}
            if results is not None and args.resume:
                earlier = {"earlier_runs": [run_of(record) for record in results.earlier_records()]}
                self._say(
                    args.quiet, results.what_was_there(len(plan.rows) * args.n_runs * len(plan_of_runs.tags)) or ""
                )
            elif results is not None and results.kept_aside is not None:
                self._say(args.quiet, f"Runs of an unfinished evaluation were kept: {results.kept_aside}")

            def on_progress(done: int, total: int, run: EvalRunResult) -> None:
                if results is not None:
                    record = record_of(run, plan.rows[(run.row_index or 0) - args.offset])
                    results.add(plan_of_runs.slot_of(record) or 0, record)
                self._print_progress(args.quiet, done, total, run)

            runner = EvalRunner(
                agent_loop=plan.agent,
                llm_client=plan.client,
                eval_fns=plan.eval_fns,
                debug=bool(args.debug),
                debug_dir=debug_dir,
                baseline_llm_client=plan.baseline_client,
                **options,
            )
            self._print_start(args, len(plan.rows))
            interrupted, failure = False, None
            result: Any = None
            try:
                result = await runner.run_eval(
                    rows=plan.rows,
                    n_runs=args.n_runs,
                    max_turns=args.max_turns,
                    completion_params=build_completion_params(args.temperature, args.max_tokens),
                    pass_threshold=args.pass_threshold,
                    on_progress=on_progress,
                    start_index=args.offset,
                    batch_size=args.batch_size,
                    **earlier,
                )
            except asyncio.CancelledError:
                interrupted = True
                result = _result_so_far(runner, INTERRUPTED)
            except CLIError:
                raise
            except Exception as error:
                if args.debug:
                    logging.getLogger(__name__).exception("The evaluation failed.")
                failure = f"Error during evaluation: {error}"
                result = _result_so_far(runner, str(error))
            if isinstance(result, EvalResult):
                self._publish(args, result, config, results)
            elif not args.quiet and failure is None:
                format_eval_report(result, self.console, args.model)
        if interrupted:
            return self._fail("Interrupted: the report covers the runs that had ended.", EXIT_INTERRUPTED)
        if failure is not None:
            return self._fail(failure)
        problem = _what_went_wrong(result) if isinstance(result, EvalResult) else None
        return EXIT_OK if problem is None else self._fail(f"Error: {problem}")

    def _publish(
        self, args: Arguments, result: EvalResult, config: dict[str, Any], results: ResultsFile | None
    ) -> None:
        if args.as_json:
            print(json.dumps({"config": config, **overview(result)}, indent=2))  # noqa: T201 - the answer itself
        elif not args.quiet:
            format_eval_report(result, self.console, args.model)
        for path in map(Path, args.reports or ()):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(render(path, result, config), encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                raise CLIError(f"Cannot write {path}: {error.strerror or error}.") from error
            self._say(args.quiet, f"Report written to: {path}")
        if results is not None:
            results.publish(
                {"config": config, **overview(result)},
                finished=not result.stopped_early,
                entries=lambda records: by_row(results.plan, records),
                name="rows",
            )
            self._say(args.quiet, "")
            self._say(args.quiet, f"Results written to: {args.output}")

    def _print_header(self, args: Arguments) -> None:
        if args.quiet:
            return
        self.console.print(f"osmosis-eval v{PACKAGE_VERSION}", style="bold")
        lines = (
            ("Endpoint", args.base_url and without_secrets(args.base_url)),
            ("Model", args.model),
            ("Baseline endpoint", args.baseline_base_url and without_secrets(args.baseline_base_url)),
            ("Baseline model", args.baseline_model),
        )
        for name, value in lines:
            if value:
                self._say(False, f"{name}: {value}")
        self.console.print()

    def _print_start(self, args: Arguments, number_of_rows: int) -> None:
        runs = f" x{args.n_runs} runs" if args.n_runs > 1 else ""
        models = " x2 models" if args.baseline_model else ""
        batch = f", batch_size={args.batch_size}" if args.batch_size > 1 else ""
        self._say(args.quiet, "")
        self._say(args.quiet, f"Running evaluation ({number_of_rows} rows{runs}{models}{batch})...")

    def _print_progress(self, quiet: bool, done: int, total: int, run: EvalRunResult) -> None:
        if quiet:
            return
        verdict = self.console.format_styled(*(("OK", "green") if run.success else ("FAILED", "red")))
        tag = f"[{run.model_tag}] " if run.model_tag else ""
        cost = f"({format_duration(run.duration_ms)}, {format_tokens(run.tokens)} tokens)"
        line = self.console.escape(f"[{done}/{total}] {tag}") + f"{verdict} {cost}"
        if run.success:
            scores = {name: f"{score:.3f}" for name, score in run.scores.items()}
            scores |= dict.fromkeys(run.eval_errors, "error") | dict.fromkeys(run.unscored, "none")
            line += self.console.escape(f" [{', '.join(f'{name}={score}' for name, score in scores.items())}]")
        elif run.error:
            error = fitted(" ".join(run.error.split()), MAX_ERROR_CHARACTERS)
            line += self.console.escape(f" - {error}")
        self.console.print(line, highlight=False, soft_wrap=True)

    def _say(self, quiet: bool, text: str) -> None:
        if not quiet:
            self.console.print(self.console.escape(text), highlight=False, soft_wrap=True)

    def _fail(self, sentence: str, exit_code: int = EXIT_FAILED) -> int:
        sys.stdout.flush()
        self.console.print_error(sentence)
        return exit_code


def _check_output(path: Path) -> None:
    check_writable(path)
    if path.suffix.lower() == LINES_SUFFIX:
        raise CLIError(f"Cannot write {path}: the runs are streamed to a .jsonl beside it; name a .json file.")


def _require(error: str | None, label: str = "Error") -> None:
    if error is not None:
        raise _Failure(f"{label}: {error}")


def _result_so_far(runner: Any, stop_reason: str) -> Any:
    """What the runs made so far come to, if ``runner`` can tell."""
    tell = getattr(runner, "result_so_far", None)
    return tell(stop_reason) if callable(tell) else None


def _new_debug_directory(wanted: bool) -> str | None:
    if not wanted:
        return None
    logging.basicConfig()
    logging.getLogger("osmosis_ai").setLevel(logging.DEBUG)
    return f"{DEBUG_PARENT}/{time.time_ns() // 1_000_000}"


def _what_went_wrong(result: EvalResult) -> str | None:
    """Why the numbers are not to be relied on, in a sentence."""
    if result.stopped_early:
        return f"The evaluation stopped early: {result.stop_reason}"
    runs = [run for row in result.rows for run in row.runs]
    for tag in dict.fromkeys(run.model_tag for run in runs):
        of_model = [run for run in runs if run.model_tag == tag]
        if not any(run.success for run in of_model):
            owner = f" of the {tag} model" if tag else ""
            error = next((run.error for run in of_model if run.error), None) or "no reason was given"
            return f"Every run{owner} failed; the first: {error}"
    scored = [run for run in runs if run.success]
    errors = [error for run in scored for error in run.eval_errors.values()]
    if errors and all(len(run.eval_errors) == len(result.eval_summaries) for run in scored):
        return f"Every eval function failed on every run; the first: {errors[0]}"
    return None
