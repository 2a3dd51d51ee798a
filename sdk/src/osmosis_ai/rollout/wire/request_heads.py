"""How large a request's head may be, for a server with the bounds of ``inbound`` and for one without."""

from typing import Any

from osmosis_ai.rollout.wire.channel import MAX_HEAD_BYTES, MAX_HEADERS

HEAD_TOO_LARGE = {"detail": f"A request's head may have {MAX_HEADERS} headers and {MAX_HEAD_BYTES} bytes."}


def is_too_large(scope: Any) -> bool:
    """Whether a head is, that has come through a server without these bounds."""
    headers = scope["headers"]
    sizes = [len(name) + len(value) + 4 for name, value in headers[: MAX_HEADERS + 1]]
    return len(headers) > MAX_HEADERS or sum(sizes) + len(scope.get("raw_path") or b"") > MAX_HEAD_BYTES
