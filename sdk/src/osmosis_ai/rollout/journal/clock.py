"""A journal's time: like the wall clock's, but it never runs back, and a step of the wall clock makes nothing old.

Within a process it goes on with the steady clock from where it started. Between processes the journal keeps the last
sign of life; what has passed since is proven as far as the steady clock of the same boot says so. The rest of the time
in between (a reboot, or a clock that was set) is *unproven* and does not count for ``before``, so that no record
expires by it. All the time in which no process had the journal open was *away* and does not count for
``served_since``, so that no delivery is given up because nobody tried.
"""

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MIN_GAP_SECONDS = 1.0
"""What is less is the clocks' own difference."""


class Clock:
    """The clocks of this machine."""

    def wall(self) -> float:
        """Unix seconds; may be set by anybody at any time."""
        return time.time()

    def steady(self) -> float:
        """Seconds since the boot, those asleep included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()

    def boot(self) -> str | None:
        """What names this boot, if the system does."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return None


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign of life: it was ``time`` when the steady clock of the boot showed ``steady``."""

    boot: str | None
    steady: float
    time: float


@dataclass(frozen=True, slots=True)
class Gap:
    """Before ``ended_at``: for so long nobody had the journal open, and so much of that is not proven."""

    ended_at: float
    away_seconds: float
    unproven_seconds: float


class Timeline:
    """The time of a journal that was opened now, after ``last`` was seen.

    Args:
        gaps: those on record, the oldest first.
        shared: whether another process has it open, so that only what is not proven was away.
    """

    def __init__(
        self, clock: Clock, last: Sign | None = None, gaps: Iterable[Gap] = (), *, shared: bool = False
    ) -> None:
        self._clock = clock
        self._boot = clock.boot()
        self._started_steady = clock.steady()
        self._started = clock.wall()
        self.gaps = list(gaps)
        self.new_gap: Gap | None = None
        """That which ended with this opening."""
        if last is not None:
            same_boot = self._boot is not None and self._boot == last.boot
            proven = max(self._started_steady - last.steady, 0.0) if same_boot else 0.0
            self._started = max(self._started, last.time + proven)
            away = self._started - last.time
            unproven = away - proven
            # Others were there for what is proven; a step of the wall clock is no time that anybody served.
            gap = Gap(self._started, unproven if shared else away, unproven)
            if max(gap.away_seconds, gap.unproven_seconds) > MIN_GAP_SECONDS:
                self.new_gap = gap
                self.gaps.append(gap)

    def now(self) -> float:
        """Unix seconds."""
        return self._started + (self._clock.steady() - self._started_steady)

    def sign(self) -> Sign:
        """A sign of life, now."""
        return Sign(self._boot, self._clock.steady(), self.now())

    def before(self, seconds: float) -> float:
        """The time that was ``seconds`` ago, or more: only proven time counts."""
        cutoff = self.now() - seconds
        for gap in reversed(self.gaps):
            if gap.ended_at > cutoff:
                cutoff -= gap.unproven_seconds
        return cutoff

    def served_since(self, start: float) -> float:
        """For how many seconds since ``start`` a process had the journal open."""
        away = sum(gap.away_seconds for gap in self.gaps if gap.ended_at > start)
        return max(self.now() - start - away, 0.0)
