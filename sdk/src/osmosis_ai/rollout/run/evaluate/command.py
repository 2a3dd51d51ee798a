"""``osmosis eval``: loads, runs, reports. Local checks come first, the network last, files whole or not at all."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.core.files import write_whole
from osmosis_ai.rollout.core.json_document import write_document
from osmosis_ai.rollout.core.judge import IMPATIENT
from osmosis_ai.rollout.core.text import bare_url, counted
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError
from osmosis_ai.rollout.run import loading
from osmosis_ai.rollout.run.debug_log import package_debug_log
from osmosis_ai.rollout.run.driver import EXIT_SIGNAL_BASE, RunPlan, until_signal
from osmosis_ai.rollout.run.errors import LocalExecutionError
from osmosis_ai.rollout.run.evaluate.documents import render
from osmosis_ai.rollout.run.evaluate.eval_fn import EvalFnWrapper, load_eval_fns
from osmosis_ai.rollout.run.evaluate.eval_results import BASELINE, PRIMARY, EvalResult, EvalRunResult
from osmosis_ai.rollout.run.evaluate.options import Options, config_of, score_bounds
from osmosis_ai.rollout.run.evaluate.own_reward import RewardExpected, own_reward
from osmosis_ai.rollout.run.evaluate.records import overview, record_of, run_of, samples
from osmosis_ai.rollout.run.evaluate.summary import count_run, performance
from osmosis_ai.rollout.run.evaluate.terminal import format_eval_report
from osmosis_ai.rollout.run.loop_watch import loop_watched
from osmosis_ai.rollout.run.models.choice import close_quietly
from osmosis_ai.rollout.run.progress import RunProgress, terminal_of
from osmosis_ai.rollout.run.results.results_file import LINES_SUFFIX, check_writable
from osmosis_ai.rollout.run.run_line import print_run
from osmosis_ai.rollout.run.tally import Tally

if TYPE_CHECKING:
    from osmosis_ai.rollout.run.evaluate.eval_runner import EvalRunner
    from osmosis_ai.rollout.run.results.results_file import ResultsFile

DEBUG_PARENT = "./eval_debug"
INTERRUPTED = "interrupted"


async def run_eval(options: Options, console: Console | None = None) -> int:
    """Run the command; ``console`` is by default one on the ``sys.stdout`` of this moment.

    Exit codes: 0 every run came to its end; 1 one did not; 128 and the number of the signal that ended it, with a
    report of what there is.

    Raises:
        UsageError: the options are wrong.
        CLIError: it cannot begin or go on, or a run failed, or it stopped early, or every score was an error; what
            there is has been reported.
    """
    options.check()
    IMPATIENT.set(True)
    with package_debug_log(options.debug):
        async with contextlib.AsyncExitStack() as clients:
            return await _Evaluation(options, console or Console(), clients).run()


class _Evaluation:
    def __init__(self, options: Options, console: Console, clients: contextlib.AsyncExitStack) -> None:
        self.options = options
        self.console = console
        self._clients = clients
        self._say = loading.speaker(console, options.is_silent)

    async def run(self) -> int:
        options, say = self.options, self._say
        bounds = score_bounds(options.score_range)
        self._print_header()
        for path in map(Path, [*(options.reports or ()), *([options.output] if options.output else [])]):
            check_writable(path)
        if options.output and Path(options.output).suffix.lower() == LINES_SUFFIX:
            raise UsageError(
                f"Cannot write {options.output}: the runs are streamed to a .jsonl beside it; name a .json file."
            )
        client = self._client(options.model, options.api_key, options.base_url, options.policy)
        agent = loading.load_agent(options.module, options.mcp, say, options.reward)
        dataset = loading.check_dataset(options, say, "No rows to evaluate", "evaluating")
        rows = dict(dataset.numbered_rows())
        eval_fns = self._load_eval_fns()
        baseline_client = None
        with _of_the_baseline():
            if options.baseline_model:
                baseline_client = self._client(
                    options.baseline_model, options.baseline_api_key, options.baseline_base_url
                )
        await loading.verify_llm_client(client, say)
        with _of_the_baseline():
            if options.baseline_model:
                await loading.verify_llm_client(baseline_client, say)
        from osmosis_ai.rollout.run.evaluate.eval_runner import EvalRunner

        debug_dir = f"{DEBUG_PARENT}/{time.time_ns() // 1_000_000}" if options.debug else None
        if debug_dir is not None:
            say(f"Event files: {debug_dir}/")
        runner = EvalRunner(
            agent_loop=agent,
            llm_client=client,
            eval_fns=eval_fns,
            debug=options.debug,
            debug_dir=debug_dir,
            baseline_llm_client=baseline_client,
            timeout_seconds=options.timeout,
            seed=options.seed,
            score_bounds=bounds,
        )
        config = config_of(options, agent, len(rows), [eval_fn.name for eval_fn in eval_fns])
        code = await self._evaluate(runner, rows, config)
        if code == 0:
            dataset.tell_what_was_left_out()
        return code

    def _client(self, model: str, api_key: str | None, base_url: str | None, policy: str | None = None) -> Any:
        client = loading.create_llm_client(model, loading.read_api_key(api_key), base_url, self._say, policy)
        self._clients.push_async_callback(close_quietly, client)
        return client

    def _load_eval_fns(self) -> list[EvalFnWrapper]:
        paths = self.options.eval_fns
        if not paths:
            self._say("Score: the agent's own reward")
            return [own_reward()]
        self._say(f"Loading eval functions: {', '.join(paths)}")
        eval_fns = load_eval_fns(paths)
        for eval_fn in eval_fns:
            self._say(f"  {eval_fn.name} ({eval_fn._mode} mode)")
        return eval_fns

    async def _evaluate(self, runner: "EvalRunner", rows: dict[int, Any], config: dict[str, Any]) -> int:
        options, result, failure = self.options, None, None
        tags = (PRIMARY, BASELINE) if options.baseline_model else (None,)
        plan = RunPlan(options.offset, options.n_runs, tags, options.limit)
        with loading.open_results(options, "eval", plan, config) as results:
            earlier = [run_of(record) for record in results.earlier_records()]
            expected = None if options.eval_fns else RewardExpected(earlier)
            tally = Tally(len(rows) * options.n_runs * len(plan.tags))
            for run in earlier:
                count_run(tally, run)
            tally.resumed = tally.ended
            terminal = None if options.quiet else terminal_of(self.console, shares_stdout=not options.as_json)
            progress = RunProgress(tally, terminal, "runs")
            if results.kept_aside is not None:
                self._say(f"Runs of an earlier evaluation were kept: {results.kept_aside}")
            elif note := results.what_was_there(len(rows) * options.n_runs * len(plan.tags)):
                self._say(note)

            def on_progress(done: int, total: int, run: EvalRunResult) -> None:
                record = record_of(run, rows[run.row_index or 0])
                results.add(plan.slot_of(record) or 0, record)
                count_run(tally, run)
                if not options.is_silent:
                    print_run(record, tally, options.n_runs, self.console)
                progress.advance()
                if expected is not None:
                    expected.add(run)

            async def evaluate() -> None:
                nonlocal result
                with progress, loop_watched():
                    result = await runner.run_eval(
                        rows=list(rows.values()),
                        n_runs=options.n_runs,
                        max_turns=options.max_turns,
                        completion_params=options.completion_params if options.baseline_model else options.sampling,
                        pass_threshold=options.pass_threshold,
                        on_progress=on_progress,
                        start_index=options.offset,
                        batch_size=options.batch_size,
                        earlier_runs=earlier,
                        row_indices=list(rows),
                    )

            self._print_start(len(rows))
            signal_number, stop_reason = 0, INTERRUPTED
            try:
                signal_number = await until_signal(evaluate())
            except Exception as error:
                if isinstance(error, CLIError) and not isinstance(error, LocalExecutionError):
                    raise  # the disk takes no results
                if options.debug:
                    logging.getLogger(__name__).exception("The evaluation failed.")
                stop_reason, failure = str(error), f"Error during evaluation: {error}"
            tally.interrupted = signal_number != 0
            if signal_number or failure:
                result = runner.result_so_far(stop_reason)
            if result is not None:
                self._publish(result, config, results, rows, tally)
        if expected is not None and not (signal_number or failure):
            expected.check()
        if signal_number:
            sys.stderr.write("Interrupted: the report covers the runs that had ended.\n")
            return EXIT_SIGNAL_BASE + signal_number
        if problem := failure or (result and _what_went_wrong(result)):
            raise CLIError(problem)
        return 0

    def _publish(
        self,
        result: EvalResult,
        config: dict[str, Any],
        results: "ResultsFile",
        rows: dict[int, Any],
        progress: Tally,
    ) -> None:
        args = self.options
        head = {"config": config, **overview(result, progress), "rows": samples(result)} if args.reads_results else {}
        if args.as_json:
            write_document(results.document(head))
        elif not args.is_silent:
            format_eval_report(result, self.console, args.name)
        for path in map(Path, args.reports or ()):
            write_whole(path, [render(path, result, config, rows)])
            self._say(f"Report written to: {path}")
        if args.output:
            results.publish(head, finished=not result.stopped_early)
            self._say()
            self._say(f"Results written to: {args.output}")

    def _print_header(self) -> None:
        options = self.options
        self._say(f"osmosis-eval v{PACKAGE_VERSION}", "bold")
        lines = (
            ("Endpoint", bare_url(options.base_url)),
            ("Model", options.name),
            ("Baseline endpoint", bare_url(options.baseline_base_url)),
            ("Baseline model", options.baseline_model),
        )
        for name, value in lines:
            if value:
                self._say(f"{name}: {value}")
        self._say()

    def _print_start(self, number_of_rows: int) -> None:
        args = self.options
        runs = f" x{args.n_runs} runs" if args.n_runs > 1 else ""
        models = " x2 models" if args.baseline_model else ""
        batch = f", batch_size={args.batch_size}" if args.batch_size > 1 else ""
        self._say()
        self._say(f"Running evaluation ({counted(number_of_rows, 'row')}{runs}{models}{batch})...")


@contextlib.contextmanager
def _of_the_baseline() -> Iterator[None]:
    try:
        yield
    except CLIError as error:
        raise type(error)(f"Error (baseline): {error}") from error


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
    if failures := {part: count for part, count in performance(result.rows).failures.items() if count}:
        parts = ", ".join(f"{part} {count}" for part, count in failures.items())
        failed = f"{sum(failures.values())} of {counted(len(runs), 'run')} failed ({parts})"
        return f"{failed} and count nowhere: with -o and --resume they are made again."
    return None
