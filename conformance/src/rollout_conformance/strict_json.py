"""JSON as RFC 8259 has it, and when two documents are the same."""

import json
from typing import Any, NoReturn


def parse_object(body: bytes) -> dict[str, Any]:
    """The object in ``body``.

    Raises:
        ValueError: not UTF-8, not JSON (``NaN`` and ``Infinity`` are not), or no object; the text says which.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise ValueError("a body that is not UTF-8") from None
    except RecursionError:
        raise ValueError("a body nested too deeply") from None
    except json.JSONDecodeError:
        raise ValueError("a body that is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError(f"JSON that is no object but a {type(value).__name__}")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"a body with {constant}, which JSON does not have")


def is_same_document(one: bytes, other: bytes) -> bool:
    """Whether both are the same bytes, or the same JSON value with keys in another order."""
    if one == other:
        return True
    # A server may encode anew for each delivery; what counts is what the trainer reads.
    try:
        return parse_object(one) == parse_object(other)
    except ValueError:
        return False


def is_number(value: Any) -> bool:
    """Whether it is a JSON number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
