"""What the body of an HTTP error says, as OpenAI, FastAPI and most others word it."""

import json
import re
from typing import Any

_WRAPPER = re.compile(r"\w+: (?=\{)")
_TORN = re.compile(r'\{\s*"detail":\s*("(?:[^"\\]++|\\.)*+)', re.DOTALL)
_decoder = json.JSONDecoder(strict=False)


def said_by(body: Any) -> str | None:
    """The sentence in a decoded body."""
    match body:
        case {"error": {"message": str(text), "code": str(code)}}:
            return text if code in text else f"{text} ({code})"
        case {"error": {"message": str(text)}} | {"error": str(text)} | {"message": str(text)} | {"detail": str(text)}:
            return text
        case _:
            return None


def unwrapped(text: str) -> str:
    """The words of an error, ``OsmosisServerError: {"detail": "..."} (HTTP 500, ...)``, without what is around it.

    What comes behind the body stays; so does any other text. The body may have been cut within its detail.
    """
    if (wrapper := _WRAPPER.match(text)) is None:
        return text
    body = text[wrapper.end() :]
    try:
        decoded, end = _decoder.raw_decode(body)
    except (ValueError, RecursionError):
        return _detail_of_torn(body) or text
    said = said_by(decoded)
    return f"{said}{body[end:]}" if said else text


def _detail_of_torn(body: str) -> str | None:
    if (torn := _TORN.match(body)) is None:
        return None
    try:
        return str(_decoder.decode(f'{torn[1]}"'))
    except ValueError:
        return None
