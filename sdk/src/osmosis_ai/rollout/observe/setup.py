"""Putting an app's telemetry together, as its settings say."""

import logging
import os
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.offload import call_in_thread
from osmosis_ai.rollout.core.settings import MetricsAccess, RolloutServerSettings
from osmosis_ai.rollout.core.watch import Observer
from osmosis_ai.rollout.observe.bus import Bus
from osmosis_ai.rollout.observe.otel_provider import provider, wants_spans

if TYPE_CHECKING:
    from osmosis_ai.rollout.observe.metrics import MetricsObserver

logger = logging.getLogger(__name__)


class Telemetry:
    """The telemetry of one app; nothing is imported for it before its first use.

    Args:
        slots: rollouts that may run at once.
        debug_dir: where traces go; ``None`` writes none.
    """

    def __init__(self, agent_name: str, slots: int, settings: RolloutServerSettings, debug_dir: str | None) -> None:
        self._agent_name = agent_name
        self._slots = slots
        self._settings = settings
        self._debug_dir = debug_dir

    @cached_property
    def metrics(self) -> "MetricsObserver | None":
        """``None`` where metrics are off, or cannot be: prometheus-client is not installed."""
        if self._settings.metrics is MetricsAccess.OFF or find_spec("prometheus_client") is None:
            return None
        from osmosis_ai.rollout.observe.metrics import MetricsObserver

        return MetricsObserver(self._agent_name, self._slots)

    @cached_property
    def bus(self) -> Bus:
        """Whom the server tells of its rollouts."""
        # The order is who measures closest to the call: metrics last, after traces have been written and spans begun.
        observers: list[Observer] = []
        if self._debug_dir:
            from osmosis_ai.rollout.observe.traces.recorder import TraceRecorder

            observers.append(TraceRecorder(self._debug_dir, self._agent_name, self._trace_lacks))
        if wants_spans(os.environ) and (tracer_provider := provider()) is not None:
            from osmosis_ai.rollout.observe.otel import TracingObserver

            observers.append(TracingObserver(self._agent_name, tracer_provider))
        if self.metrics is not None:
            observers.append(self.metrics)
        return Bus(observers)

    def _trace_lacks(self, why: str) -> None:
        self.bus.trace_lacks(why)

    @property
    def why_no_metrics(self) -> str | None:
        """Why there is nothing to scrape, as the end of a sentence; ``None`` where there is."""
        if self.metrics is not None:
            return None
        off = self._settings.metrics is MetricsAccess.OFF
        return "are switched off" if off else "need prometheus-client: pip install osmosis-ai[server]"

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """Body and content type of the answer to ``GET /metrics``; ``accept`` is the header of that name."""
        metrics = self.metrics
        assert metrics is not None  # noqa: S101 - see why_no_metrics
        metrics.refresh()
        return await call_in_thread(metrics.render, accept)
