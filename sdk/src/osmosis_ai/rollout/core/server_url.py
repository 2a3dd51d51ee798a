"""The base URL of a trainer: what one may be."""

from functools import lru_cache
from urllib.parse import urlsplit

# What the URL standard forbids in a host and urlsplit lets through.
_FORBIDDEN_IN_HOST = frozenset('<>\\^|"`{}')
_REMEMBERED_URL_LENGTH = 512


def check_server_url(server_url: str) -> str:
    """Give back a trainer's base URL; paths are joined to it, so it ends at the path (RFC 3986).

    Raises:
        ValueError: it cannot be one.
    """
    # Thousands of rollouts name the same trainer.
    return _known_url(server_url) if len(server_url) <= _REMEMBERED_URL_LENGTH else _base_url(server_url)


def _base_url(server_url: str) -> str:
    if not server_url.isprintable() or " " in server_url:
        raise ValueError("server_url must not contain whitespace or control characters")
    try:
        parts = urlsplit(server_url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"server_url must have a valid host and port ({error})") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("server_url must use http or https scheme")
    if not host or not host.strip(".") or _FORBIDDEN_IN_HOST & set(host) or port == 0:
        raise ValueError("server_url must have a valid host and port")
    if parts.username is not None or parts.password is not None:
        raise ValueError("server_url must not carry user info; send the callback key as api_key")
    if "?" in server_url or "#" in server_url:
        raise ValueError("server_url must not have a query or a fragment")
    return server_url


_known_url = lru_cache(maxsize=1024)(_base_url)
