"""Whom a trainer's URL may name and what its key may be: asked at init, by the client itself and by every command.

One answer for all, so that no rollout is accepted whose trainer the client would refuse to call.
"""

import re
from functools import lru_cache

import httpx

from osmosis_ai.rollout.core.schemas import check_server_url

_HEADER_TEXT = re.compile(r"[!-~]([ -~]*[!-~])?")


@lru_cache(maxsize=1024)
def check_callable(server_url: str) -> None:
    """Check a trainer's base URL as the client will read it.

    Raises:
        ValueError: it cannot be called; the text says why.
    """
    check_server_url(server_url)
    try:
        str(httpx.URL(server_url).host)  # decoding the host finds malformed IDNA, which parsing lets through
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(str(error)) from error


def is_sendable(key: str) -> bool:
    """Whether a key can stand in an ``Authorization`` header as it is (RFC 9110, section 5.5): printable ASCII.

    A space at either end is refused too: the other side would take the key without it, and find it wrong.
    """
    return _HEADER_TEXT.fullmatch(key) is not None
