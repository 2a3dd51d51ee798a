"""Alias of ``osmosis_ai.rollout.eval.test_mode.cli``."""

from osmosis_ai.rollout.eval.test_mode.cli import TestCommand

__all__ = ["TestCommand"]
