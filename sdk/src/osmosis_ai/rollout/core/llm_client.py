"""What an agent loop needs of a model: one protocol, met by the trainer client and by every stand-in."""

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from osmosis_ai.rollout.client import CompletionsResult
    from osmosis_ai.rollout.core.schemas import RolloutMetrics

__all__ = ["LLMClientProtocol"]


@runtime_checkable
class LLMClientProtocol(Protocol):
    """A policy an agent can call. Spec: core.md, section 6."""

    async def chat_completions(self, messages: list[dict[str, Any]], **kwargs: Any) -> "CompletionsResult":
        """Generate the next message for the whole conversation ``messages``."""
        ...

    def get_metrics(self) -> "RolloutMetrics":
        """Calls, latency and tokens so far."""
        ...
