"""How large the head of a request or a reply may be: the bounds of ``inbound``, and of a server without those too."""

from typing import Any

MAX_HEAD_BYTES = 65_536
"""Of all that is not body: headers, 1xx replies before them, chunk extensions, trailers."""
MAX_HEADER_BYTES = 16_384
"""Of one header of a reply."""
MAX_HEADERS = 100
HEAD_TOO_LARGE = {"detail": f"A request's head may have {MAX_HEADERS} headers and {MAX_HEAD_BYTES} bytes."}


def is_too_large(scope: Any) -> bool:
    """Whether a head is, that has come through a server without these bounds."""
    headers = scope["headers"]
    sizes = [len(name) + len(value) + 4 for name, value in headers[: MAX_HEADERS + 1]]
    return len(headers) > MAX_HEADERS or sum(sizes) + len(scope.get("raw_path") or b"") > MAX_HEAD_BYTES
