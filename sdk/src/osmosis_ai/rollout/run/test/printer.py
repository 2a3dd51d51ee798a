"""What a batch came to, for people."""

from osmosis_ai.rollout.core.text import counted, printable
from osmosis_ai.rollout.run.formats import format_duration, format_number, format_tokens
from osmosis_ai.rollout.run.loading import Say
from osmosis_ai.rollout.run.run_line import RunVerdict
from osmosis_ai.rollout.run.tally import problem_lines, warning_lines
from osmosis_ai.rollout.run.test.batch_report import SOLVED_REWARD, BatchReport
from osmosis_ai.rollout.run.zero_reasons import zero_lines


def print_summary(report: BatchReport, say: Say) -> None:
    """Totals, reward, cost and the failures by kind."""
    say()
    say("Summary:", "bold")
    counts = report.counts
    passed, failed = counts[RunVerdict.PASSED], counts[RunVerdict.FAILED]
    say(f"  Total: {report.ended}" + (f" of {report.planned}" if report.planned > report.ended else ""))
    say(f"  Passed: {passed}", "green" if passed else None)
    if zeros := counts[RunVerdict.SCORED_ZERO]:
        say(f"  Scored 0 or less: {zeros}", "yellow")
        for line in zero_lines(report.zero_reasons, zeros):
            say(f"    {line}", "yellow")
    say(f"  Failed: {failed}", "red" if failed else None)
    if set(report.finish_reasons) - {"stop"}:
        told = (f"{printable(reason)} {count}" for reason, count in report.finish_reasons.most_common())
        say(f"  Finish reasons: {', '.join(told)}")
    if report.mean_reward is not None:
        say(f"  Mean reward: {format_number(report.mean_reward)} (over {counted(report.rewarded, 'run')})")
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
