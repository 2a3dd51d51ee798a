"""What a model reads of the result of an MCP tool."""

from typing import Any

from osmosis_ai.rollout.core.tools import serialize_tool_result

_MEDIA = ("image", "audio")


def extract_tool_value(result: Any) -> Any:
    """The value a tool returned: its structured content where there is one, else its text.

    Structured content with the one key ``result`` is how FastMCP wraps a value that is no object. Pictures and other
    attachments are described in a line each.
    """
    structured = getattr(result, "structured_content", None)
    if structured is not None:
        return structured["result"] if isinstance(structured, dict) and structured.keys() == {"result"} else structured
    blocks = _blocks(result)
    if blocks is None:
        return result
    return "\n".join(filter(None, [_text_of(block) or _description_of(block) for block in blocks]))


def tool_result_text(result: Any) -> str:
    """The content of the tool message for ``result``."""
    text = serialize_tool_result(extract_tool_value(result))
    if getattr(result, "structured_content", None) is None:
        return text
    return "\n".join([text, *filter(None, map(_description_of, _blocks(result) or []))])


def is_error_result(result: Any) -> bool:
    """Whether the tool reported a failure in place of raising."""
    return getattr(result, "is_error", False) is True


def is_input_request(result: Any) -> bool:
    """Whether the tool asked its client for something in place of answering (FastMCP's InputRequiredToolResult)."""
    return "input_required" in getattr(type(result), "model_fields", ())


def _blocks(result: Any) -> list[Any] | None:
    """The content blocks; ``None`` where ``result`` is no result of MCP but a plain value."""
    if isinstance(result, list):  # FastMCP before 2.10
        return result
    if not hasattr(result, "content"):
        return None
    return list(result.content or ())


def _text_of(block: Any) -> str | None:
    text = _field(block, "text")
    if text is None and (resource := getattr(block, "resource", None)) is not None:
        text = _field(resource, "text")
    return text


def _description_of(block: Any) -> str | None:
    """``[image: image/png, 1234 bytes]``; ``None`` for text."""
    kind, media_type = _field(block, "type"), _media_type(block)
    if kind in _MEDIA or (kind is None and media_type is not None):
        data = _field(block, "data")
        return _line(kind or "attachment", media_type, _size(data))
    if kind == "resource_link":
        return _line("link", _uri(block), _field(block, "name"))
    resource = getattr(block, "resource", None)
    if kind == "resource" and _field(resource, "text") is None:
        return _line("resource", _uri(resource), _media_type(resource), _size(_field(resource, "blob")))
    return None


def _line(kind: str, *facts: str | None) -> str:
    known = ", ".join(filter(None, facts))
    return f"[{kind}: {known}]" if known else f"[{kind}]"


def _size(base64_text: str | None) -> str | None:
    return None if base64_text is None else f"{len(base64_text.rstrip('=')) * 3 // 4} bytes"


def _uri(block: Any) -> str | None:
    uri = getattr(block, "uri", None)
    return str(uri) if uri else None


def _media_type(block: Any) -> str | None:
    return _field(block, "mime_type" if hasattr(block, "mime_type") else "mimeType")  # since, and before, mcp 2


def _field(block: Any, name: str) -> str | None:
    value = getattr(block, name, None)
    return value if isinstance(value, str) else None
