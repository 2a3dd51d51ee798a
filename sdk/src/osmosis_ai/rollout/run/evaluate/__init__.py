"""Measuring an agent: runs of a dataset, scored by eval functions, and what they come to."""

from osmosis_ai.rollout.run.evaluate.eval_fn import EvalFnError, EvalFnWrapper, load_eval_fn, load_eval_fns
from osmosis_ai.rollout.run.evaluate.eval_results import (
    EvalEvalSummary,
    EvalModelSummary,
    EvalResult,
    EvalRowResult,
    EvalRunResult,
)
from osmosis_ai.rollout.run.evaluate.eval_runner import EvalRunner
from osmosis_ai.rollout.run.evaluate.statistics import pass_at_k
from osmosis_ai.rollout.run.evaluate.terminal import format_eval_report

__all__ = [
    "EvalEvalSummary",
    "EvalFnError",
    "EvalFnWrapper",
    "EvalModelSummary",
    "EvalResult",
    "EvalRowResult",
    "EvalRunResult",
    "EvalRunner",
    "format_eval_report",
    "load_eval_fn",
    "load_eval_fns",
    "pass_at_k",
]
