"""Counting what happens, for ``GET /metrics``. Imported where metrics are on and prometheus-client is installed."""

import math
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from prometheus_client import CollectorRegistry

from osmosis_ai.rollout.core.exceptions import (
    OsmosisServerError,
    OsmosisTimeoutError,
    OsmosisTrainerAbsentError,
    OsmosisTransportError,
    OsmosisValidationError,
)
from osmosis_ai.rollout.core.results import ResultSummary
from osmosis_ai.rollout.core.watch import Accepted, Observer, RolloutWatch, ToolOutcome, names_of
from osmosis_ai.rollout.observe import unwritten
from osmosis_ai.rollout.observe.exposition import exposed, render, shared_folder
from osmosis_ai.rollout.observe.instruments import OTHER, Instruments, count_all

LAG_WINDOW_SECONDS = 60.0
_QUEUED, _RUNNING, _DELIVERING = "queued", "running", "delivering"

# The first that fits, so the widest come last.
_CHAT_OUTCOMES: tuple[tuple[type[BaseException], str], ...] = (
    (OsmosisTimeoutError, "timeout"),
    (OsmosisServerError, "server_error"),
    (OsmosisTransportError, "unreachable"),
    (OsmosisTrainerAbsentError, "unreachable"),
    (OsmosisValidationError, "refused"),
    (Exception, "error"),
    (BaseException, "cancelled"),
)


class MetricsObserver(Observer):
    """Counts the rollouts of one app, in a registry of its own.

    Args:
        slots: rollouts that may run at once.
    """

    def __init__(self, agent_name: str, slots: int) -> None:
        self._is_shared = shared_folder() is not None
        if self._is_shared:
            unwritten.use()
        self.registry = CollectorRegistry()
        self.instruments = Instruments(self.registry, agent_name)
        self.instruments.slots.set(slots)
        # Brought to the gauges by `refresh`: with workers, each change of a gauge is a write to a file.
        self.in_phase: dict[str | None, int] = dict.fromkeys((*self.instruments.rollouts, None), 0)
        self.paused = 0
        """Chat calls that wait for a trainer that pauses."""
        self.retried = 0
        """Results that failed to be delivered at least once."""
        self.undelivered: dict[int, float] = {}
        """Of each result on its way to its trainer: when that began (``time.monotonic``)."""
        self.journal_is_sound = True
        self.journal_backlog_now = (0, 0.0)
        """Of all replicas: rollouts without a result, and seconds since the oldest of them was accepted."""
        self._exposed = exposed(self.registry)
        self._lag_max = self._lag_max_before = 0.0
        self._lag_window_ends = 0.0

    def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics as ``accept`` asks for them, and their content type; may be called in any thread."""
        return render(self._exposed, accept)

    def refresh(self) -> None:
        """Bring all values up to date, on the event loop: for a scrape, and now and then for one of another worker."""
        if self._is_shared:
            self._write()
        for phase, gauge in self.instruments.rollouts.items():
            gauge.set(self.in_phase[phase])
        self.instruments.backlog.set(self.retried)
        self.instruments.paused.set(self.paused)
        self.instruments.journal_sound.set(self.journal_is_sound)
        amount, oldest_seconds = self.journal_backlog_now
        self.instruments.journal_unfinished.set(amount)
        self.instruments.journal_oldest.set(oldest_seconds)
        oldest = min(self.undelivered.values(), default=None)
        self.instruments.backlog_age.set(0.0 if oldest is None else max(0.0, time.monotonic() - oldest))

    def init_refused(self, reason: str) -> None:
        refused = self.instruments.inits_refused
        # Labels are a fixed set: no peer can make time series.
        (refused.get(reason) or refused[OTHER]).inc()

    def init_repeated(self) -> None:
        self.instruments.inits_repeated.inc()

    def accepted(self, rollout: Accepted) -> RolloutWatch:
        self.instruments.inits_accepted.inc()
        watch = _MeasuredRollout(self, rollout.tools)
        watch.enters(_QUEUED)
        return watch

    def recovered(self, rollout_id: str, server_url: str, age_seconds: float) -> RolloutWatch:
        watch = _MeasuredRollout(self, ())
        watch.enters(_DELIVERING)
        # Its delivery began in a process that is gone.
        self.undelivered[id(watch)] -= age_seconds
        return watch

    def journal_operation(self, operation: str, seconds: float, failed: bool) -> None:
        self.instruments.journal[operation].observe(seconds)
        if failed:
            self.instruments.journal_errors[operation].inc()

    def journal_problem(self, problem: str | None) -> None:
        self.journal_is_sound = problem is None

    def journal_backlog(self, amount: int, oldest_seconds: float) -> None:
        self.journal_backlog_now = (amount, oldest_seconds)

    def trace_lacks(self, why: str) -> None:
        self.instruments.traces_incomplete[why].inc()

    def loop_lag(self, seconds: float) -> None:
        self.instruments.loop_lag.observe(seconds)
        now = time.monotonic()
        if now >= self._lag_window_ends:
            self._lag_max_before, self._lag_max = self._lag_max, 0.0
            self._lag_window_ends = now + LAG_WINDOW_SECONDS
        self._lag_max = max(self._lag_max, seconds)
        # Of this window and the one before, or a scrape just after a turn would read next to nothing.
        self.instruments.loop_lag_max.set(max(self._lag_max, self._lag_max_before))
        self.refresh()

    def loop_blocked(self, seconds: float) -> None:
        self.instruments.loop_blocks.inc()
        self.instruments.loop_lag_max.set(max(self._lag_max, self._lag_max_before, seconds))
        if self._is_shared:  # the loop, which blocks, cannot show it to the other workers
            self._write()

    @staticmethod
    def _write() -> None:
        count_all()
        unwritten.write()


class _MeasuredRollout(RolloutWatch):
    __slots__ = (
        "_accepted",
        "_in_phase",
        "_instruments",
        "_names",
        "_observer",
        "_phase",
        "_prompt_tokens",
        "_ran",
        "_response_tokens",
        "_retries",
        "_tools",
        "_turns",
        "_weight_versions",
    )

    def __init__(self, observer: MetricsObserver, tools: Sequence[Any]) -> None:
        self._observer = observer
        self._instruments = observer.instruments
        self._in_phase = observer.in_phase
        self._tools = tools
        self._names: frozenset[str] | None = None
        self._accepted = time.monotonic()
        self._phase: str | None = None
        self._ran = self._retries = False
        self._turns = 0
        self._weight_versions: list[int | str] = []
        self._prompt_tokens = self._response_tokens = 0.0

    def enters(self, phase: str | None) -> None:
        in_phase = self._in_phase
        in_phase[self._phase] -= 1
        in_phase[phase] += 1
        self._phase = phase
        if phase == _RUNNING:
            self._ran = True
            self._instruments.queue_time.observe(time.monotonic() - self._accepted)
        elif phase == _DELIVERING:
            self._observer.undelivered[id(self)] = time.monotonic()

    def chat_begins(self, messages: Sequence[Any], sampling: dict[str, Any]) -> float:
        return time.perf_counter()

    def chat_ends(self, chat: float, reply: Any) -> None:
        self._turns += 1
        self._instruments.chat["ok"].observe(time.perf_counter() - chat)
        self._weight_versions += getattr(reply, "weight_versions", ())
        usage = getattr(reply, "usage", None)
        if isinstance(usage, dict):
            self._prompt_tokens += _tokens(usage.get("prompt_tokens"))
            self._response_tokens += _tokens(usage.get("completion_tokens"))

    def chat_failed(self, chat: float, error: BaseException) -> None:
        outcome = next(outcome for kind, outcome in _CHAT_OUTCOMES if isinstance(error, kind))
        self._instruments.chat[outcome].observe(time.perf_counter() - chat)

    def pause_begins(self, cause: str, problem: str, seconds: float) -> str:
        self._observer.paused += 1
        return cause

    def pause_ends(self, pause: str, seconds: float, since: float, answered: bool) -> None:
        self._observer.paused -= 1
        self._instruments.pauses[pause].observe(seconds)

    def tool_begins(self, name: str, call_id: str) -> tuple[str, float]:
        return name, time.perf_counter()

    def tool_ends(self, tool: tuple[str, float], outcome: ToolOutcome) -> None:
        name, started = tool
        seconds = time.perf_counter() - started
        if self._names is None:
            self._names = names_of(self._tools)
        # A model may call any name; only those that were offered become a label.
        self._instruments.tool(name if name in self._names else OTHER, outcome).observe(seconds)

    def ended(self, summary: ResultSummary, duration_seconds: float) -> None:
        instruments = self._instruments
        instruments.ended(summary.status, summary.outcome, summary.finish_reason or OTHER).inc()
        instruments.duration.observe(duration_seconds)
        if self._ran:
            instruments.turns.observe(self._turns)
            if self._weight_versions:
                instruments.staleness.observe(_updates_within(self._weight_versions))
            instruments.prompt_tokens.inc(self._prompt_tokens)
            instruments.response_tokens.inc(self._response_tokens)
        if summary.reward is not None:
            instruments.reward.observe(summary.reward)
            # A counter only rises, so rewards below 0 have one of their own.
            sign = instruments.reward_above if summary.reward >= 0 else instruments.reward_below
            sign.inc(abs(summary.reward))

    def attempt_begins(self, attempt: int) -> float:
        return time.perf_counter()

    def attempt_ends(self, mark: float, verdict: str, error: Exception | None) -> None:
        self._instruments.attempt_latency.observe(time.perf_counter() - mark)
        self._instruments.attempts[verdict].inc()
        if error is not None and not self._retries:
            self._retries = True
            self._observer.retried += 1

    def gone(self) -> None:
        self.enters(None)
        self._observer.undelivered.pop(id(self), None)
        if self._retries:
            self._retries = False
            self._observer.retried -= 1


def _updates_within(versions: Sequence[int | str]) -> int:
    """Updates of the weights between the first and the last; of names, how often they change."""
    first, last = versions[0], versions[-1]
    if isinstance(first, int) and isinstance(last, int):
        return last - first
    return sum(before != after for before, after in pairwise(versions))


def _tokens(count: Any) -> float:
    return count if isinstance(count, (int, float)) and 0 < count < math.inf else 0
