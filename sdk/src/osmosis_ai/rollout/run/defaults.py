"""Default values of ``osmosis test`` and ``eval``; imports next to nothing, so that ``--help`` shows them quickly."""

from osmosis_ai.rollout.trainer.defaults import MAX_TURNS, ROLLOUT_TIMEOUT_SECONDS

__all__ = ["CONCURRENCY", "MAX_TURNS", "MODEL", "RUN_TIMEOUT_SECONDS"]

MODEL = "gpt-4o"
CONCURRENCY = 1
RUN_TIMEOUT_SECONDS = ROLLOUT_TIMEOUT_SECONDS
