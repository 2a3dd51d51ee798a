"""Lines of a trace: one event as one line of strict JSON (RFC 8259), whatever the event holds."""

import json
import time
from typing import Any

from pydantic_core import to_json

from osmosis_ai.rollout.core.jsonable import plain

MAX_EVENT_BYTES = 96 * 1024 * 1024
"""Above the largest result that a server sends by default."""

_OURS = frozenset({"event", "rollout_id", "time"})
# With a space after each colon: so `FollowedFile` tells an agent's lines from ours without decoding them.
_AGENT_ENCODER = json.JSONEncoder(default=str, ensure_ascii=False, allow_nan=False)


def line_of_agent(event_type: str, rollout_id: str, data: dict[str, Any]) -> bytes:
    """The line of ``ctx.log_event``: ``event`` and ``rollout_id`` first, ``time`` last; those three are ours.

    Values that JSON cannot express are written through ``str()``. Raises nothing.
    """
    if not _OURS.isdisjoint(data):
        data = {key: value for key, value in data.items() if key not in _OURS}
    event = {"event": event_type, "rollout_id": rollout_id, **data, "time": unix_seconds()}
    try:
        line = _AGENT_ENCODER.encode(event).encode() + b"\n"
    except Exception:  # noqa: BLE001 - a value's own __str__ may raise anything; the slow path names it instead
        line = _encode_plain(event)
    return line if len(line) <= MAX_EVENT_BYTES else _left_out(event_type, rollout_id, len(line))


def line_of_sdk(event_type: str, rollout_id: str, data: dict[str, Any]) -> bytes:
    """The line of an event of our own, mostly JSON that came over the wire; what is none is written as text."""
    event = {"event": event_type, "rollout_id": rollout_id, **data, "time": unix_seconds()}
    try:
        line = to_json(event, inf_nan_mode="strings") + b"\n"
    except Exception:  # noqa: BLE001 - an agent's messages may hold anything
        line = _encode_plain(event)
    return line if len(line) <= MAX_EVENT_BYTES else _left_out(event_type, rollout_id, len(line))


def line_of_json(event_type: str, rollout_id: str, encoded: bytes) -> bytes:
    """The line of an event that is a JSON object already, its bytes unchanged; it begins with the rollout's id."""
    if len(encoded) + 1000 > MAX_EVENT_BYTES:
        return _left_out(event_type, rollout_id, len(encoded))
    return b'{"event":%b,%b,"time":%b}\n' % (to_json(event_type), encoded[1:-1], to_json(unix_seconds()))


def encoded_message(message: Any) -> bytes | None:
    """A message as it stands in a trace; ``None`` where it is no JSON as it is."""
    try:
        return to_json(message, inf_nan_mode="strings")
    except Exception:  # noqa: BLE001 - an agent's messages may hold anything
        return None


def unix_seconds() -> float:
    """The time of an event."""
    return round(time.time(), 6)


def _left_out(event_type: str, rollout_id: str, size_bytes: int) -> bytes:
    said = f"event of {size_bytes} bytes left out"
    return _encode_plain({"event": event_type, "rollout_id": rollout_id, "truncated": said, "time": unix_seconds()})


def _encode_plain(event: dict[str, Any]) -> bytes:
    return json.dumps(plain(event), ensure_ascii=False, allow_nan=False).encode() + b"\n"
