"""Alias of ``osmosis_ai.rollout.eval.common.llm_client``."""

from osmosis_ai.rollout.eval.common.llm_client import ExternalLLMClient

__all__ = ["ExternalLLMClient"]
