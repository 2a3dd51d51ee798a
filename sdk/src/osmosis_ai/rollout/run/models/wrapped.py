"""A client around another: what stands between an agent and its model overrides one method."""

from typing import Any

from osmosis_ai.rollout.core.schemas import RolloutMetrics


class WrappedClient:
    """Everything but ``chat_completions`` is the wrapped client's own."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        if name == "_wrapped":  # on its way out of a copy, before it is there
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    def set_tools(self, tools: list[Any]) -> None:
        """Offer ``tools``."""
        self._wrapped.set_tools(tools)

    def clear_tools(self) -> None:
        """Offer no tools."""
        self._wrapped.clear_tools()

    def reset_metrics(self) -> None:
        """Set all counters to zero."""
        self._wrapped.reset_metrics()

    def get_metrics(self) -> RolloutMetrics:
        """The wrapped client's counters; time spent waiting for anything else is no latency of the model."""
        metrics: RolloutMetrics = self._wrapped.get_metrics()
        return metrics
