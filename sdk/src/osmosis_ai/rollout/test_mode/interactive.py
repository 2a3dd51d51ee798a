"""Alias of ``osmosis_ai.rollout.eval.test_mode.interactive``."""

from osmosis_ai.rollout.eval.test_mode.interactive import InteractiveLLMClient, InteractiveRunner, InteractiveStep

__all__ = ["InteractiveLLMClient", "InteractiveRunner", "InteractiveStep"]
