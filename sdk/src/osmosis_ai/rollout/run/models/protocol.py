"""What a local run needs of a model beyond ``LLMClientProtocol``."""

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.schemas import RolloutMetrics

__all__ = ["LocalLLMClientProtocol"]


@runtime_checkable
class LocalLLMClientProtocol(Protocol):
    """A model client that one run after another can use."""

    def set_tools(self, tools: list[Any]) -> None:
        """Offer ``tools`` from the next call on."""
        ...

    def clear_tools(self) -> None:
        """Offer no tools."""
        ...

    def reset_metrics(self) -> None:
        """Set all counters to zero."""
        ...

    def get_metrics(self) -> "RolloutMetrics":
        """Calls, latency and tokens since ``reset_metrics``."""
        ...
