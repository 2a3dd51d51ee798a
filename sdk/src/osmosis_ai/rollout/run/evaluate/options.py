"""What ``osmosis eval`` was asked for, and the record of it that goes into its files."""

import math
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.core.text import bare_url
from osmosis_ai.rollout.core.user_errors import UsageError
from osmosis_ai.rollout.run import defaults
from osmosis_ai.rollout.run.comparing_code import agent_scores_by_is_right, comes_to_is_right
from osmosis_ai.rollout.run.evaluate.statistics import CONFIDENCE, DEFAULT_SEED, Interval
from osmosis_ai.rollout.run.options import RunOptions, flag_of
from osmosis_ai.rollout.run.results.inputs import file_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(RunOptions):
    """The command line."""

    _CODE: ClassVar[tuple[str, ...]] = ("module", "eval_fns")
    _MODELS: ClassVar[tuple[str, ...]] = (*RunOptions._MODELS, "baseline_model", "baseline_base_url")
    _SETTINGS: ClassVar[tuple[str, ...]] = (*RunOptions._SETTINGS, "eval_fns", "score_range")

    model: str = ""
    eval_fns: list[str] | None = None
    n_runs: int = 1
    pass_threshold: float = 1.0
    batch_size: int = defaults.CONCURRENCY
    baseline_model: str | None = None
    baseline_base_url: str | None = None
    baseline_api_key: str | None = None
    reports: list[str] | None = None
    seed: int = DEFAULT_SEED
    score_range: str | None = None

    @property
    def scores_by_is_right(self) -> bool:
        """Of the eval functions: the scores are theirs."""
        return (
            comes_to_is_right(self.eval_fns)
            if self.eval_fns
            else agent_scores_by_is_right(self.module, self.mcp, self.reward)
        )

    def _combination_problem(self) -> str | None:
        if not self.name:
            return "Give --model NAME, or --policy MODULE:ATTR for a script in its place."
        for name in ("baseline_base_url", "baseline_api_key"):
            if getattr(self, name) and not self.baseline_model:
                return f"{flag_of(name)} requires --baseline-model."
        for report in self.reports or ():
            if Path(report).suffix.lower() not in (".md", ".html", ".htm"):
                return f"--report {report}: the suffix says the format; use .md or .html."
        return RunOptions._combination_problem(self)


def score_bounds(text: str | None) -> Interval | None:
    """What ``--score-range`` says: ``-1,1``.

    Raises:
        UsageError: it is no such pair of numbers.
    """
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = 0.0
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise UsageError(f"--score-range {text}: give the lowest and the highest score, as in --score-range=-1,1.")
    return Interval(low, high)


def config_of(args: Options, agent: Any, number_of_rows: int, eval_names: list[str]) -> dict[str, Any]:
    """All that the results depend on, without keys."""
    digest = file_digest(Path(args.dataset))
    config: dict[str, Any] = {
        "model": args.name,
        "n_runs": args.n_runs,
        "pass_threshold": args.pass_threshold,
        "score_range": args.score_range,
        "eval_fns": eval_names,
    }
    if args.baseline_model:
        config["baseline_model"] = args.baseline_model
        config["baseline_endpoint"] = bare_url(args.baseline_base_url)
    return config | {
        "endpoint": bare_url(args.base_url),
        "agent": {"module": args.module, "mcp": args.mcp, "name": getattr(agent, "name", None)},
        "dataset": {
            "path": str(args.dataset),
            "sha256": digest and digest.removeprefix("sha256:"),
            "rows": number_of_rows,
            "offset": args.offset,
            "limit": args.limit,
            "columns": args.columns,
        },
        "max_turns": args.max_turns,
        "completion_params": args.completion_params,
        "batch_size": args.batch_size,
        "timeout_seconds": args.timeout,
        "confidence": CONFIDENCE,
        "seed": args.seed,
        "sdk_version": PACKAGE_VERSION,
        "python_version": platform.python_version(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
