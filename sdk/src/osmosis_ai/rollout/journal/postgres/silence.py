"""How long other owners have been silent, as far as somebody was there to hear them.

Invariant: only time counts in which this one looked, again and again, and the database answered. Where nobody could
renew, as the database was away, or the machine of all of them asleep, silence says nothing and begins anew.
"""

from collections.abc import Mapping


class Silences:
    """Of the other owners.

    Args:
        longest_step_seconds: between two looks; a longer one says nothing of what was between.
    """

    def __init__(self, longest_step_seconds: float) -> None:
        self._longest_step_seconds = longest_step_seconds
        self._looked_at = 0.0
        self._since: dict[int, tuple[int, float]] = {}
        """Of each owner: its last count of renewals, and when that was new here."""

    def look(self, beats: Mapping[int, int], now: float) -> dict[int, float]:
        """For how many seconds each owner has been silent; ``beats`` has the counts of their renewals."""
        if now - self._looked_at > self._longest_step_seconds:
            self._since = {}
        self._looked_at = now
        before, self._since = self._since, {}
        for epoch, count in beats.items():
            last = before.get(epoch)
            self._since[epoch] = last if last is not None and last[0] == count else (count, now)
        return {epoch: now - since for epoch, (_, since) in self._since.items()}

    def begin_anew(self) -> None:
        """Nobody could be heard."""
        self._since = {}
