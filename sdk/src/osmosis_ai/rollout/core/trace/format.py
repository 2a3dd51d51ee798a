"""The trace format, version 1: the names of the SDK's own events. ``docs/traces.md`` tells what each holds.

A trace is one JSON object a line (RFC 8259, UTF-8); the schema is ``docs/schemas/trace-event.schema.json``.
"""

from enum import StrEnum

TRACE_VERSION = 1
"""Goes up when a reader of the old format would misread the new one; new fields and events do not count."""

TRACE_SUFFIX = ".jsonl"


class TraceEvent(StrEnum):
    """What the SDK writes of every rollout; any other ``event`` is the agent's, from ``ctx.log_event``."""

    TRACE_START = "trace_start"
    """An init was accepted: the format's version, the request without its key, the tools."""
    RUN_START = "run_start"
    """The agent starts; ``queue_ms`` is how long the rollout waited for that."""
    CHAT_START = "chat_start"
    """The policy is asked; ``appended`` is what the conversation has from index ``at`` on."""
    CHAT_END = "chat_end"
    """The policy answered, or the call failed."""
    PAUSE_START = "pause_start"
    """A chat call waits for a trainer that pauses; ``cause`` and ``problem`` say why."""
    PAUSE_END = "pause_end"
    """The trainer is back (``answered``), or the call has given it up; ``pause_ms`` long, and over since ``ago_ms``."""
    TOOL_CALL = "tool_call"
    """One tool call has ended."""
    LOOP_BLOCKED = "loop_blocked"
    """The agent blocks the event loop, and with it every rollout, at ``place`` for ``seconds`` so far."""
    MESSAGES_REWRITTEN = "messages_rewritten"
    """The agent changed messages that it had sent."""
    ROLLOUT_ERROR = "rollout_error"
    """The agent failed, or was stopped."""
    ROLLOUT_RESULT = "rollout_result"
    """The result, field by field as it is delivered."""
    DELIVERY = "delivery"
    """One attempt to deliver the result has ended."""
