"""A batch for people: a line a run as it ends, and the summary."""

from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.loop_blocks import LOOP_BLOCKS
from osmosis_ai.rollout.core.reward_parts import readable_components
from osmosis_ai.rollout.core.text import counted, fitted, printable
from osmosis_ai.rollout.run.formats import format_duration, format_tokens, run_cost
from osmosis_ai.rollout.run.loading import Say
from osmosis_ai.rollout.run.results.results_file import Record
from osmosis_ai.rollout.run.tally import problem_lines, warning_lines
from osmosis_ai.rollout.run.test.batch_report import SOLVED_REWARD, BatchReport, RunVerdict, verdict_of
from osmosis_ai.rollout.run.zero_reasons import zero_lines

MAX_ERROR_CHARACTERS = 50

_STYLES = {RunVerdict.PASSED: "green", RunVerdict.SCORED_ZERO: "yellow", RunVerdict.FAILED: "red"}


def print_run(record: Record, report: BatchReport, repeats: int, console: Console) -> None:
    """``[<i>/<n>] Row <index>: <verdict> (<duration>, <tokens> tokens)`` and what else there is to tell."""
    verdict = verdict_of(record)
    which = f"Row {record['row_index']}" + (f" #{record['repeat'] + 1}" if repeats > 1 else "")
    cost = run_cost(record["duration_ms"], record["token_usage"].get("total_tokens", 0))
    line = "".join(
        (
            console.escape(f"[{report.ended}/{report.planned}] {which}: "),
            console.format_styled(verdict.value, _STYLES[verdict]),
            console.escape(f" {cost}{_details(record)}"),
        )
    )
    console.print(line, highlight=False, soft_wrap=True)


def print_summary(report: BatchReport, say: Say) -> None:
    """Totals, reward, cost and the failures by kind."""
    say()
    say("Summary:", "bold")
    counts = report.counts
    passed, failed = counts[RunVerdict.PASSED], counts[RunVerdict.FAILED]
    say(f"  Total: {report.ended}" + (f" of {report.planned}" if report.planned > report.ended else ""))
    say(f"  Passed: {passed}", "green" if passed else None)
    if zeros := counts[RunVerdict.SCORED_ZERO]:
        say(f"  Scored 0: {zeros}", "yellow")
        for line in zero_lines(report.zero_reasons, zeros):
            say(f"    {line}", "yellow")
    say(f"  Failed: {failed}", "red" if failed else None)
    if set(report.finish_reasons) - {"stop"}:
        told = (f"{printable(reason)} {count}" for reason, count in report.finish_reasons.most_common())
        say(f"  Finish reasons: {', '.join(told)}")
    if report.mean_reward is not None:
        say(f"  Mean reward: {report.mean_reward:.2f} (over {counted(report.rewarded, 'run')})")
        for text in report.components.lines():
            say(f"    {text}")
        say(f"  Solved: {report.solved} of {report.rewarded} (reward {SOLVED_REWARD:g} or more)")
    elif passed:
        say("  Mean reward: none (no run has a reward: ctx.complete(messages, reward=...) gives one)")
    say(f"  Duration: {format_duration(report.duration_ms)}")
    say(f"  Total tokens: {format_tokens(report.total_tokens)}")
    if report.cost_usd is not None:
        say(f"  Cost: ${report.cost_usd:.4f}")
    if report.rate_limit_waits:
        say(f"  Rate limits: {counted(report.rate_limit_waits, 'call')} had to wait")
    for line in problem_lines(report.problems):
        say(line)
    for line in warning_lines(report):
        say(f"  {printable(line)}", "yellow")
    if report.stop_reason is not None:
        reason = printable(report.stop_reason)
        say(f"  Stopped early due to systemic provider error. Reason: {reason}", "red")


def _details(record: Record) -> str:
    if not record["success"]:
        # How it failed is in the summary, once for all that failed alike.
        return f" - {fitted(printable(record['error_kind']), MAX_ERROR_CHARACTERS)}" if record["error_kind"] else ""
    details: list[str] = [] if record["reward"] is None else [f"reward {record['reward']:.2f}"]
    components = readable_components(record.get("reward_components"))
    details += [f"{printable(name)} {value:.2f}" for name, value in components.items()]
    details += [counted(record["turns"], "turn"), counted(record["tool_calls"], "tool call")]
    details += ["rewrote messages"] if record.get("rewritten") else []
    details += ["blocked the event loop"] if record.get(LOOP_BLOCKS) else []
    if record.get("finish_reason") not in (None, "stop"):
        details.append(fitted(printable(record["finish_reason"]), MAX_ERROR_CHARACTERS))
    return " " + ", ".join(details)
