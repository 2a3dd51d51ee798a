"""What an agent loop needs of a model: one protocol, met by the trainer client and by every stand-in."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from osmosis_ai.rollout.core.messages import get_message_text, parse_tool_calls

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.schemas import RolloutMetrics

__all__ = ["LLMClientProtocol"]


@dataclass(frozen=True)
class CompletionsResult:
    """One generated message. ``usage`` holds token counts as the trainer sent them, without nulls.

    The token fields are empty where the model server says nothing of them: ids and log-probabilities of the tokens that
    were sampled, ids of the prompt they were sampled after, and the versions of the weights from the first to the last.
    """

    message: dict[str, Any]
    token_ids: list[int]
    logprobs: list[float]
    usage: dict[str, int]
    finish_reason: str
    prompt_token_ids: list[int] = field(default_factory=list)
    weight_versions: list[int | str] = field(default_factory=list)

    @property
    def has_tool_calls(self) -> bool:
        """Whether the message calls a tool."""
        return bool(self.tool_calls)

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The message's tool calls, its ``function_call`` too; ``[]`` where absent, null or no list."""
        return parse_tool_calls(self.message)

    @property
    def content(self) -> str | None:
        """The message's text, that of its parts where it comes in parts; ``None`` where absent."""
        content = self.message.get("content")
        return content if content is None or isinstance(content, str) else get_message_text(self.message)


@runtime_checkable
class LLMClientProtocol(Protocol):
    """A policy an agent can call."""

    async def chat_completions(self, messages: list[dict[str, Any]], **kwargs: Any) -> CompletionsResult:
        """Generate the next message for the whole conversation ``messages``."""
        ...

    def get_metrics(self) -> "RolloutMetrics":
        """Calls, latency and tokens so far."""
        ...
