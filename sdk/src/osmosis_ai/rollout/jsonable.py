"""Strict JSON (RFC 8259) out of whatever an agent or a tool produced."""

import json
import math
from typing import Any

MAX_NESTING = 64
MAX_INTEGER_BITS = 4096


def plain(value: Any, depth_left: int = MAX_NESTING) -> Any:
    """``value`` in JSON's terms, whatever it is.

    Non-finite numbers and foreign objects become text, cycles and excessive nesting are cut, and nothing is raised.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= MAX_INTEGER_BITS else "<integer too large>"
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if depth_left == 0:
        return "<nested too deep>"
    if isinstance(value, dict):
        return {text(key): plain(item, depth_left - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth_left - 1) for item in value]
    return text(value)


def text(value: Any) -> str:
    """``str(value)``, or a placeholder where that fails."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        return f"<unprintable {type(value).__name__}>"


def is_strict_json(value: Any) -> bool:
    """Whether ``value`` can be written as strict JSON in UTF-8, as it is."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def shortened(value: Any, max_characters: int) -> Any:
    """A copy of a JSON value in which no text is longer than about ``max_characters``."""
    if isinstance(value, str) and len(value) > max_characters:
        return f"{value[:max_characters]}... [{len(value) - max_characters} characters left out]"
    if isinstance(value, dict):
        return {key: shortened(item, max_characters) for key, item in value.items()}
    if isinstance(value, list):
        return [shortened(item, max_characters) for item in value]
    return value
