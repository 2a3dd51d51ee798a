"""``EvalCommand`` where ``osmosis_ai.rollout.eval.evaluation.cli`` has it."""

from osmosis_ai._compat.commands import EvalCommand

__all__ = ["EvalCommand"]
