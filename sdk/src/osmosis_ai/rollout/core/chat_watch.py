"""Who is told of a rollout's chat calls, and where its events go."""

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol


class ChatWatch:
    """Who is told of a rollout's chat calls; what ``chat_begins`` gives back, the other two get."""

    __slots__ = ()

    def chat_begins(self, messages: Sequence[Any], sampling: dict[str, Any]) -> Any:
        """A chat call is about to be made, in the current task."""

    def in_doubt(self) -> Awaitable[None] | None:
        """What to await before an attempt of the call; ``None``: it may be made. Raises what ends the call instead."""
        return None

    def chat_ends(self, chat: Any, reply: Any) -> None:
        """The reply has come."""

    def chat_failed(self, chat: Any, error: BaseException) -> None:
        """The call ended with ``error``, all its attempts included."""

    def pause_begins(self, cause: str, problem: str, seconds: float) -> Any:
        """A chat call has met a pause of the trainer, a ``PauseCause``, ``seconds`` after the attempt began."""

    def pause_ends(self, pause: Any, seconds: float, since: float, answered: bool) -> None:
        """The pause was over ``since`` seconds ago, and took ``seconds``.

        ``answered``: the trainer is back, so the attempt that was made then belongs to the agent's own time.
        """


class Trace(Protocol):
    """Where a rollout's events go, to a file in ``directory``; nothing raises."""

    directory: str

    def write(self, event_type: str, data: dict[str, Any]) -> None:
        """Add an event."""

    def close(self) -> None:
        """Close the file; a later ``write`` opens it again."""
