"""``TestCommand`` where ``osmosis_ai.rollout.eval.test_mode.cli`` has it."""

from osmosis_ai._compat.commands import TestCommand

__all__ = ["TestCommand"]
