"""The Prometheus metrics of a server: names, help, labels, buckets. What they mean is told in ``docs/metrics.md``.

Every label has a bounded set of values: an enum, or the tools that the agent offered, at most ``MAX_TOOLS`` of them.
What falls outside is counted as ``other``. Children are resolved once, here.
"""

from bisect import bisect_left
from collections import Counter as Tally, deque
from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.samples import Sample

from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.core.trace.file import TraceLack
from osmosis_ai.rollout.core.watch import PauseCause, Phase, ToolOutcome, Verdict
from osmosis_ai.rollout.observe.journal import TIMED_OPERATIONS

OTHER = "other"
MAX_TOOLS = 64
MAX_TOOL_NAME_LENGTH = 64

FINISH_REASONS = frozenset(
    {"stop", "length", "tool_calls", "content_filter", "max_turns", "max_tokens", "timeout", "cancelled", "error"}
)
REFUSAL_REASONS = (
    *("unauthorized", "invalid", "not_json", "body_too_large", "body_too_slow", "body_cut_off", "key_reused"),
    *("at_capacity", "get_failed", "journal_unavailable", "shutting_down", "internal_error", OTHER),
)
CHAT_OUTCOMES = ("ok", "refused", "server_error", "timeout", "unreachable", "cancelled", "error")

_FAST = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_MODEL = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0)
_WHOLE = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
_REWARD = (-1.0, -0.5, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999, 1.0, 2.0, 5.0, 10.0)
_TURNS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)
_UPDATES = (0, 1, 2, 3, 5, 10, 20)
_LAG = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


MAX_NOTED = 1000
_distributions: "WeakSet[_Distribution]" = WeakSet()


class _Distribution(Histogram):
    """A histogram for values that come ten times a rollout: they are noted, and counted when somebody asks.

    Noting is one call in C, and none waits for a lock; counting many at once costs a fifth of one at a time.
    """

    def _metric_init(self) -> None:  # of those that have values: children, and what has no labels
        super()._metric_init()
        self._noted: deque[float] = deque()
        _distributions.add(self)

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        self._noted.append(amount)
        if len(self._noted) > MAX_NOTED:
            self.count()

    def count(self) -> None:
        """Bring the buckets up to date; several threads may do so at once."""
        counts: Tally[int] = Tally()
        total = 0.0
        while self._noted:
            try:
                amount = self._noted.popleft()
            except IndexError:  # another thread was quicker
                break
            total += amount
            counts[bisect_left(self._upper_bounds, amount)] += 1  # a value on a bound is within it
        if counts:
            self._sum.inc(total)
        for bucket, count in counts.items():
            self._buckets[bucket].inc(count)

    def _child_samples(self) -> Iterable[Sample]:
        self.count()
        return super()._child_samples()


class _Counter(Counter):
    """A counter that is not asked at each count whether it has values."""

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        self._value.inc(amount)


def count_all() -> None:
    """Count what was noted: for values that others read elsewhere (``unwritten``)."""
    for distribution in list(_distributions):
        distribution.count()


class Instruments:
    """All metrics of one app, registered in ``registry``.

    Gauges are sums over the living worker processes where several serve one port, ``*_max_*`` and ages the largest.
    """

    def __init__(self, registry: CollectorRegistry, agent_name: str) -> None:
        def counter(name: str, text: str, labels: Iterable[str] = ()) -> Counter:
            return _Counter(name, text, tuple(labels), registry=registry)

        def gauge(name: str, text: str, labels: Iterable[str] = (), mode: Any = "livesum") -> Gauge:
            return Gauge(name, text, tuple(labels), registry=registry, multiprocess_mode=mode)

        def histogram(name: str, text: str, buckets: tuple[float, ...], labels: Iterable[str] = ()) -> Histogram:
            return _Distribution(name, text, tuple(labels), registry=registry, buckets=buckets)

        gauge("osmosis_build_info", "Version of the SDK and the agent it serves; always 1.", ("version", "agent"), "max"
        ).labels(PACKAGE_VERSION, agent_name[:100]).set(1)  # fmt: skip

        self.inits_accepted = counter("osmosis_inits_accepted_total", "Inits answered 202 that started a rollout.")
        self.inits_repeated = counter("osmosis_inits_repeated_total", "Inits answered from memory or the journal.")
        refused = counter("osmosis_inits_refused_total", "Inits refused, by reason.", ("reason",))
        self.inits_refused = {reason: refused.labels(reason) for reason in REFUSAL_REASONS}

        rollouts = gauge("osmosis_rollouts", "Rollouts in this state now.", ("state",))
        self.rollouts = {str(phase): rollouts.labels(str(phase)) for phase in Phase}
        self.slots = gauge("osmosis_rollout_slots", "Rollouts that may run at once.")
        self.rollouts_ended = counter(
            "osmosis_rollouts_ended_total",
            "Rollouts with a result, by its status, outcome and finish reason.",
            ("status", "outcome", "finish_reason"),
        )
        self.duration = histogram("osmosis_rollout_duration_seconds", "From the accepted init to the result.", _WHOLE)
        self.queue_time = histogram("osmosis_rollout_queue_seconds", "From the accepted init to the start.", _WHOLE)
        self.reward = histogram("osmosis_rollout_reward", "Reward of the results that carry one.", _REWARD)
        points = counter(
            "osmosis_rollout_reward_points_total", "Sum of all rewards above zero, and of those below.", ("sign",)
        )
        self.reward_above, self.reward_below = points.labels("positive"), points.labels("negative")
        self.turns = histogram("osmosis_rollout_turns", "Replies of the model in a rollout that ran.", _TURNS)
        self.staleness = histogram(
            "osmosis_rollout_weight_updates", "Weight updates from a rollout's first token to its last.", _UPDATES
        )

        chat = histogram(
            "osmosis_llm_latency_seconds", "Chat calls to the trainer, retries included.", _MODEL, ("outcome",)
        )
        self.chat = {outcome: chat.labels(outcome) for outcome in CHAT_OUTCOMES}
        pauses = histogram(
            "osmosis_llm_pause_seconds", "Waits of chat calls for a trainer that pauses.", _WHOLE, ("cause",)
        )
        self.pauses = {str(cause): pauses.labels(str(cause)) for cause in PauseCause}
        self.paused = gauge("osmosis_llm_paused_calls", "Chat calls that wait for a trainer that pauses now.")
        tokens = counter("osmosis_llm_tokens_total", "Tokens as the trainer counted them.", ("kind",))
        self.prompt_tokens, self.response_tokens = tokens.labels("prompt"), tokens.labels("response")

        self._tool_latency = histogram(
            "osmosis_tool_latency_seconds", "Tool calls, by tool and outcome.", _FAST, ("tool", "outcome")
        )
        self._tools: dict[str, dict[ToolOutcome, Histogram]] = {}

        attempts = counter("osmosis_delivery_attempts_total", "Posts of a result, by the answer.", ("verdict",))
        self.attempts = {str(verdict): attempts.labels(str(verdict)) for verdict in Verdict}
        self.attempt_latency = histogram("osmosis_delivery_latency_seconds", "One post of a result.", _MODEL)
        self.backlog = gauge("osmosis_delivery_backlog", "Results that failed to be delivered and are tried again.")
        self.backlog_age = gauge(
            "osmosis_delivery_oldest_seconds", "Age of the oldest result on its way to its trainer.", (), "livemax"
        )

        latency = histogram(
            "osmosis_journal_latency_seconds", "Journal operations, the wait included.", _FAST, ("operation",)
        )
        self.journal = {name: latency.labels(name) for name in TIMED_OPERATIONS}
        failures = counter("osmosis_journal_errors_total", "Journal operations that failed.", ("operation",))
        self.journal_errors = {name: failures.labels(name) for name in TIMED_OPERATIONS}

        self.journal_sound = gauge(
            "osmosis_journal_sound", "1, or 0 while the journal is damaged or out of place.", (), "livemin"
        )

        self.journal_unfinished = gauge(
            "osmosis_journal_unfinished", "Rollouts of all replicas that have no result yet.", (), "livemax"
        )
        self.journal_oldest = gauge(
            "osmosis_journal_oldest_unfinished_seconds", "Age of the oldest of them.", (), "livemax"
        )

        incomplete = counter("osmosis_traces_incomplete_total", "Traces that are not whole, by why.", ("reason",))
        self.traces_incomplete = {str(lack): incomplete.labels(str(lack)) for lack in TraceLack}

        self.loop_lag = histogram(
            "osmosis_event_loop_lag_seconds", "How much later than asked the event loop calls back.", _LAG
        )
        self.loop_lag_max = gauge(
            "osmosis_event_loop_lag_max_seconds", "Largest lag of the last minute or two.", (), "livemax"
        )
        self.loop_blocks = counter(
            "osmosis_event_loop_blocks_total", "Times that the event loop was blocked for a second or more."
        )
        self._ended: dict[tuple[str, str, str], Counter] = {}

    def ended(self, status: str, outcome: str, finish_reason: str) -> Counter:
        """The counter of such results."""
        reason = finish_reason if finish_reason in FINISH_REASONS else OTHER
        key = (status, outcome, reason)
        child = self._ended.get(key)
        if child is None:
            child = self._ended[key] = self.rollouts_ended.labels(*key)
        return child

    def tool(self, name: str, outcome: ToolOutcome) -> Histogram:
        """The latency of a tool that the agent offers; the name is ``other`` beyond ``MAX_TOOLS``."""
        children = self._tools.get(name)
        if children is None:
            if len(self._tools) >= MAX_TOOLS or len(name) > MAX_TOOL_NAME_LENGTH:
                name = OTHER
            children = self._tools.setdefault(name, {})
        child = children.get(outcome)
        if child is None:
            child = children[outcome] = self._tool_latency.labels(name, str(outcome))
        return child
