"""One line in the log for each rollout that has ended."""

import logging
from dataclasses import asdict

from osmosis_ai.rollout.core.results import ResultSummary
from osmosis_ai.rollout.core.watch import Accepted, Observer, RolloutWatch
from osmosis_ai.rollout.observe.logs import FIELDS

# The name under which users know the line, and filter it: ``docs/metrics.md``.
logger = logging.getLogger("osmosis_ai.rollout.server.service")


class EndLog(Observer):
    """Logs the end of each rollout that was accepted here."""

    def accepted(self, rollout: Accepted) -> RolloutWatch:
        return _Ending(rollout.rollout_id)


class _Ending(RolloutWatch):
    __slots__ = ("_rollout_id",)

    only_end = True

    def __init__(self, rollout_id: str) -> None:
        self._rollout_id = rollout_id

    def ended(self, summary: ResultSummary, duration_seconds: float) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        logger.info(
            "Rollout %a ended: status=%s finish_reason=%a outcome=%s duration=%.3f s",
            self._rollout_id,
            summary.status,
            summary.finish_reason,
            summary.outcome,
            duration_seconds,
            extra={FIELDS: {**asdict(summary), "duration_seconds": duration_seconds}},
        )
