"""Whether a generated reply is whole, by the ``finish_reason`` of its choice; only one that is may be scored.

The table of ``docs/protocol.md``, section 4.3, in code. What is not whole never reaches the agent: an engine aborts
what it generates when its weights are updated, and half a message is not what the policy had to say.
"""

from typing import Any, Final

from osmosis_ai.rollout.wire.refusal import Then

WHOLE: Final = frozenset({"stop", "tool_calls", "length", "function_call"})
"""The model's own end, a call (``function_call`` is OpenAI's older name), or the limit that was asked for."""

BROKEN_OFF: Final = frozenset(
    {
        "abort",
        "aborted",
        "canceled",
        "cancelled",
        "disconnected",
        "error",
        "failed",
        "failure",
        "in_progress",
        "incomplete",
        "insufficient_system_resource",
        "interrupted",
        "network_error",
        "timed_out",
        "timeout",
    }
)
"""What no engine says of a message that has ended, whoever it is asked by."""

_THEN: Final = {
    "abort": Then.WAIT,
    # The filter judges what the policy wrote: to ask until it lets something pass would choose among its replies.
    "content_filter": Then.GIVE_UP,
}

ABSENT: Final = "stop"
"""Where the choice has no such key: a trainer that speaks of no finish reasons vouches for each message it sends."""


class NotWholeError(ValueError):
    """A reply that must not be scored; ``then`` says what comes next."""

    def __init__(self, finish_reason: Any) -> None:
        super().__init__(f"is not whole: its finish_reason is {_shown(finish_reason)}")
        self.then = _THEN.get(finish_reason, Then.COUNT) if isinstance(finish_reason, str) else Then.COUNT


def finish_reason_of(choice: dict[str, Any]) -> str:
    """Why a whole reply ended.

    Raises:
        NotWholeError: it is not whole. A null is what a stream has before its end; a word that is not in the table may
            mean anything.
    """
    finish_reason = choice.get("finish_reason", ABSENT)
    if isinstance(finish_reason, str) and finish_reason in WHOLE:
        return finish_reason
    raise NotWholeError(finish_reason)


def _shown(finish_reason: Any) -> str:
    if finish_reason is None:
        return "null"
    return f"{finish_reason!a:.60}" if isinstance(finish_reason, str) else f"a {type(finish_reason).__name__}"
