"""A run as it ends, on one line: the same of ``osmosis test``, ``eval`` and ``trainer``."""

from enum import Enum

from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.loop_blocks import LOOP_BLOCKS
from osmosis_ai.rollout.core.reward_parts import readable_components
from osmosis_ai.rollout.core.text import counted, fitted, printable
from osmosis_ai.rollout.run.formats import format_number, run_cost
from osmosis_ai.rollout.run.results.results_file import Record
from osmosis_ai.rollout.run.tally import Tally

MAX_ERROR_CHARACTERS = 50
_REWARD = "reward"


class RunVerdict(Enum):
    """How a run is shown."""

    PASSED = "OK"
    """It ran, and its reward, where there is one, is above 0."""
    SCORED_ZERO = "ZERO"
    """It ran, and got a reward of 0 or less."""
    FAILED = "FAILED"
    """It did not run to its end."""


_STYLES = {RunVerdict.PASSED: "green", RunVerdict.SCORED_ZERO: "yellow", RunVerdict.FAILED: "red"}


def verdict_of(record: Record) -> RunVerdict:
    """The verdict on one run; where eval functions scored it, by the best of them."""
    if not record["success"]:
        return RunVerdict.FAILED
    failed = record.get("eval_errors") or {}
    scores = [score for name, score in (record.get("scores") or {}).items() if name not in failed]
    best = max(scores) if scores else record["reward"]
    return RunVerdict.PASSED if best is None or best > 0 else RunVerdict.SCORED_ZERO


def print_run(record: Record, tally: Tally, repeats: int, console: Console) -> None:
    """``[<i>/<n>] Row <index> run <repeat>: <verdict> (<duration>, <tokens> tokens)`` and what else there is."""
    verdict, tag = verdict_of(record), record.get("model_tag")
    which = f"Row {record['row_index']}" + (f" run {record['repeat']}" if repeats > 1 else "")
    which += f" [{tag}]" if tag else ""
    cost = run_cost(record["duration_ms"], record["token_usage"].get("total_tokens", 0))
    line = "".join(
        (
            console.escape(f"[{tally.ended}/{tally.planned}] {which}: "),
            console.format_styled(verdict.value, _STYLES[verdict]),
            console.escape(f" {cost}{_details(record)}"),
        )
    )
    console.print(line, highlight=False, soft_wrap=True)


def _details(record: Record) -> str:
    if not record["success"]:
        # How it failed is in the summary, once for all that failed alike.
        return f" - {fitted(printable(record['error_kind']), MAX_ERROR_CHARACTERS)}" if record["error_kind"] else ""
    details: list[str] = [] if record["reward"] is None else [f"{_REWARD} {format_number(record['reward'])}"]
    components = readable_components(record.get("reward_components"))
    details += [f"{printable(name)} {format_number(value)}" for name, value in components.items()]
    scores = {name: format_number(score) for name, score in (record.get("scores") or {}).items() if name != _REWARD}
    scores |= dict.fromkeys(record.get("eval_errors") or (), "error")
    scores |= dict.fromkeys(record.get("unscored") or (), "none")
    details += [f"{printable(name)} {score}" for name, score in scores.items()]
    details += [counted(record["turns"], "turn"), counted(record["tool_calls"], "tool call")]
    details += ["rewrote messages"] if record.get("rewritten") else []
    details += ["blocked the event loop"] if record.get(LOOP_BLOCKS) else []
    if record.get("finish_reason") not in (None, "stop"):
        details.append(fitted(printable(record["finish_reason"]), MAX_ERROR_CHARACTERS))
    return " " + ", ".join(details)
