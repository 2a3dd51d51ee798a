"""What a model reads of the result of an MCP tool: text, and images as content parts."""

import binascii
import re
from base64 import b64decode
from typing import Any

from osmosis_ai.rollout.core.tools import ContentParts, serialize_tool_result

MAX_IMAGE_BYTES = 5_000_000
"""As providers take them; what is larger, or no image, is described in a line."""

MAX_TEXT_CHARACTERS = 1_000_000
"""Of one text; more fits into no model's context. What is beyond is counted, and not sent."""

_MEDIA = ("image", "audio")
_IMAGE_TYPE = re.compile(r"image/[a-z0-9.+-]{1,40}", re.ASCII)


def extract_tool_value(result: Any) -> Any:
    """The value a tool returned: its structured content where there is one, else its text.

    Structured content with the one key ``result`` is how FastMCP wraps a value that is no object. Attachments
    are described in a line each.
    """
    structured = getattr(result, "structured_content", None)
    if structured is not None:
        return structured["result"] if isinstance(structured, dict) and structured.keys() == {"result"} else structured
    blocks = _blocks(result)
    if blocks is None:
        return result
    return "\n".join(filter(None, [_text_of(block) or _description_of(block) for block in blocks]))


def tool_result_content(result: Any) -> str | ContentParts:
    """The content of the tool message for ``result``: a text, or parts in their order where there are images."""
    parts: list[dict[str, Any]] = []
    structured = getattr(result, "structured_content", None) is not None
    blocks, has_image = _blocks(result) or [], False
    if structured:
        _add_text(parts, serialize_tool_result(extract_tool_value(result)))
    for block in blocks:
        if (image := _image_part(block)) is not None:
            parts.append(image)
            has_image = True
        elif text := _description_of(block) or (None if structured else _text_of(block)):
            _add_text(parts, serialize_tool_result(text))
    if not has_image:
        return tool_result_text(result)
    return ContentParts([{**part, "text": _bounded(part["text"])} if "text" in part else part for part in parts])


def _add_text(parts: list[dict[str, Any]], text: str) -> None:
    if parts and parts[-1]["type"] == "text":
        parts[-1]["text"] += f"\n{text}"
    else:
        parts.append({"type": "text", "text": text})


def _image_part(block: Any) -> dict[str, Any] | None:
    data, media_type = _field(block, "data"), (_media_type(block) or "").lower()
    if _field(block, "type") != "image" or data is None or _IMAGE_TYPE.fullmatch(media_type) is None:
        return None
    if not 0 < len(data) <= MAX_IMAGE_BYTES * 4 // 3 + 4:
        return None
    try:
        b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
    return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{data}"}}


def tool_result_text(result: Any) -> str:
    """The content of the tool message for ``result``."""
    text = serialize_tool_result(extract_tool_value(result))
    if getattr(result, "structured_content", None) is not None:
        text = "\n".join([text, *filter(None, map(_description_of, _blocks(result) or []))])
    return _bounded(text)


def _bounded(text: str) -> str:
    beyond = len(text) - MAX_TEXT_CHARACTERS
    return text if beyond <= 0 else f"{text[:MAX_TEXT_CHARACTERS]}\n[{beyond:,} more characters are left out]"


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
