"""The vocabulary of an evaluation: runs, rows of runs, and what they come to.

One ``EvalRunResult`` a run of a row, gathered in an ``EvalRowResult`` a row; an ``EvalResult`` holds them with one
``EvalEvalSummary`` an eval function. Fields after the documented ones have defaults.
"""

from dataclasses import dataclass, field
from typing import Any

from osmosis_ai.rollout.run.errors import failed_part
from osmosis_ai.rollout.run.evaluate.statistics import Interval, PairedDifference
from osmosis_ai.rollout.run.moments import ComponentMoments
from osmosis_ai.rollout.run.results.entry import RunNotes

COMPLETED = "completed"
PRIMARY = "primary"
BASELINE = "baseline"


@dataclass
class EvalRunResult(RunNotes):
    """One run of one row."""

    run_index: int
    success: bool
    """Whether the agent completed. A run that did not has no scores, and counts in no statistic of scores."""
    scores: dict[str, float] = field(default_factory=dict)
    """By eval function. One that failed has 0.0 here and its reason in ``eval_errors``."""
    duration_ms: float = 0.0
    tokens: int = 0
    error: str | None = None
    model_tag: str | None = None
    """``"primary"`` or ``"baseline"`` in a comparison, else ``None``."""
    eval_errors: dict[str, str] = field(default_factory=dict)
    """Eval functions that crashed or gave no usable score; they count nowhere, neither as 0 nor as a run."""
    unscored: list[str] = field(default_factory=list)
    """Eval functions that gave no reward (``None``) for this run; they count nowhere either."""
    reward: float | None = None
    """The agent's own reward."""
    finish_reason: str | None = None
    final_messages: list[dict[str, Any]] | None = field(default=None, repr=False)
    """The conversation. Only there on its way to ``on_progress``: a result keeps none."""
    answer: str | None = None
    """The end of the model's last words, for a report."""
    row_index: int | None = None
    token_usage: dict[str, int] = field(default_factory=dict)
    """``prompt_tokens``, ``completion_tokens``, ``total_tokens`` and ``num_llm_calls``, where known."""
    tool_calls: int = 0
    components: dict[str, dict[str, float]] = field(default_factory=dict)
    """What scores are made of, by eval function and name of the part."""
    reward_components: dict[str, float] = field(default_factory=dict)
    """What the agent's own reward is made of."""

    @property
    def outcome(self) -> str:
        """``completed``, or whose failure it was."""
        return COMPLETED if self.success else failed_part(self.error_kind).value

    @property
    def rollout_id(self) -> str:
        """What the agent knew it by."""
        return rollout_id_of(self.row_index or 0, self.run_index, self.model_tag)


def rollout_id_of(row_index: int, run_index: int, model_tag: str | None) -> str:
    """The id of a run: ``eval-3-run-0``, in a comparison with the tag behind it."""
    return f"eval-{row_index}-run-{run_index}" + (f"-{model_tag}" if model_tag else "")


@dataclass
class EvalRowResult:
    """The runs of one row, of both models in a comparison."""

    row_index: int
    runs: list[EvalRunResult] = field(default_factory=list)


@dataclass
class EvalEvalSummary:
    """What one eval function made of one model's runs. All zero without runs."""

    mean: float = 0.0
    """Over the scored runs; a run that failed is none."""
    std: float = 0.0
    """Population standard deviation."""
    min: float = 0.0
    max: float = 0.0
    pass_at_k: dict[int, float] = field(default_factory=dict)
    """Averaged over the rows with at least k scored runs; empty with one run a row."""
    pass_hat_k: dict[int, float] = field(default_factory=dict)
    """The chance that all of k runs pass; over the same rows as pass@k."""
    pass_rows: dict[int, int] = field(default_factory=dict)
    """How many rows have at least k scored runs."""
    majority: float | None = None
    """The share of rows more than half of whose scored runs passed; ``None`` with one run a row."""
    standard_error: float | None = None
    """Of the mean, clustered by row; ``None`` for fewer than two rows."""
    mean_interval: Interval | None = None
    """95 % confidence interval of the mean, over rows."""
    pass_at_k_intervals: dict[int, Interval] = field(default_factory=dict)
    scored_runs: int = 0
    scored_rows: int = 0
    errors: int = 0
    """Runs on which the function crashed or gave no usable score."""
    first_error: str | None = None
    unscored: int = 0
    """Runs for which the function gave no reward."""
    failed: int = 0
    """Runs that it was not asked for, as they had failed: the provider, the agent, or a time limit."""

    components: ComponentMoments = field(default_factory=ComponentMoments)
    """Mean and spread of the parts of the score, over the runs that have them."""

    @property
    def is_empty(self) -> bool:
        """Whether there were runs but never a score: the zeros then mean nothing."""
        return not self.scored_runs and bool(self.errors or self.unscored or self.failed)


@dataclass
class EvalModelSummary:
    """One model of a comparison."""

    model: str
    model_tag: str
    eval_summaries: dict[str, EvalEvalSummary]
    total_runs: int
    total_tokens: int
    total_duration_ms: float
    """Sum over its runs."""


@dataclass
class EvalResult:
    """An evaluation, whole or cut short."""

    rows: list[EvalRowResult]
    eval_summaries: dict[str, EvalEvalSummary]
    """By eval function; of the primary model in a comparison."""
    total_rows: int
    total_runs: int
    total_tokens: int
    total_duration_ms: float
    """Wall time."""
    n_runs: int
    pass_threshold: float
    stopped_early: bool = False
    stop_reason: str | None = None
    model_summaries: list[EvalModelSummary] | None = None
    """``[primary, baseline]`` in a comparison."""
    comparisons: dict[str, PairedDifference] = field(default_factory=dict)
    """Primary minus baseline, by eval function, over the rows that both have scores for."""
