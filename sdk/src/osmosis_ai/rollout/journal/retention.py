"""How long a record is kept: the one rule, for both journals, for repeated inits and for housekeeping.

What is not settled is owed and stays. A settled record goes when its time since then is over (``Timeline.before``);
until then its key is taken, so a repeated init is answered from it and starts nothing.
"""

from dataclasses import dataclass

from osmosis_ai.rollout.journal.clock import Timeline
from osmosis_ai.rollout.journal.types import JournalRecord, RolloutState

DELIVERED_KEPT_SECONDS = 3600.0
UNDELIVERABLE_KEPT_SECONDS = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Retention:
    """Seconds from the settling on; see ``docs/protocol.md``, section 3.3."""

    delivered_seconds: float = DELIVERED_KEPT_SECONDS
    undeliverable_seconds: float = UNDELIVERABLE_KEPT_SECONDS

    def cutoffs(self, timeline: Timeline) -> dict[RolloutState, float]:
        """For each settled state, the time (unix seconds) before which a record in it was settled if it is to go."""
        return {
            RolloutState.DELIVERED: timeline.before(self.delivered_seconds),
            RolloutState.UNDELIVERABLE: timeline.before(self.undeliverable_seconds),
        }


def is_over(record: JournalRecord, cutoffs: dict[RolloutState, float]) -> bool:
    """Whether the time of ``record`` is over."""
    return record.settled_at is not None and record.settled_at < cutoffs[record.state]
