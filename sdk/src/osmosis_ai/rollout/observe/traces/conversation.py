"""The messages of a rollout out of its events, as they were; and what they are for fine-tuning."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from osmosis_ai.rollout.core.trace.format import TraceEvent

Messages = list[dict[str, Any]]


@dataclass
class Conversation:
    """What was said in a rollout."""

    messages: Messages = field(default_factory=list)
    """Those of the result; without one, those that were sent and received so far."""
    tools: list[Any] = field(default_factory=list)
    is_final: bool = False
    """Whether ``messages`` are those of the result."""


def conversation_of(events: Iterable[Mapping[str, Any]]) -> Conversation:
    """The conversation that the events of one rollout tell of."""
    conversation = Conversation()
    for event in events:
        _take_in(conversation, event)
    return conversation


def _take_in(conversation: Conversation, event: Mapping[str, Any]) -> None:
    name = event.get("event")
    if name == TraceEvent.TRACE_START:
        tools = event.get("tools")
        conversation.tools = tools if isinstance(tools, list) else []
        request = event.get("request")
        conversation.messages = _messages(request.get("messages") if isinstance(request, dict) else None) or []
    elif name in (TraceEvent.ROLLOUT_RESULT, "rollout_complete"):
        final = _messages(event.get("final_messages"))
        if final is not None and (name == TraceEvent.ROLLOUT_RESULT or not conversation.is_final):
            conversation.messages, conversation.is_final = final, True
    elif conversation.is_final:
        return
    elif name == TraceEvent.CHAT_START:
        at, appended = event.get("at"), _messages(event.get("appended"))
        if isinstance(at, int) and at >= 0 and appended is not None:
            conversation.messages[at:] = appended
    elif name == TraceEvent.CHAT_END and isinstance(reply := event.get("reply"), dict):
        conversation.messages.append(reply)


def _messages(value: object) -> Messages | None:
    """A list of its own, as the conversation grows and the events stay what they are."""
    return list(value) if isinstance(value, list) and all(isinstance(item, dict) for item in value) else None
