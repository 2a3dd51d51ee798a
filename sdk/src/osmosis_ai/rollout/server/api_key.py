"""The rollout server's own key, which a trainer sends as ``Authorization: Bearer <key>``. See ``docs/protocol.md``."""

import hmac
import secrets

__all__ = ["API_KEY_PREFIX", "generate_api_key", "validate_api_key"]

API_KEY_PREFIX = "osm_rollout_"
API_KEY_RANDOM_BYTES = 32


def generate_api_key() -> str:
    """A new key: ``API_KEY_PREFIX`` and 43 characters of URL-safe base64."""
    return API_KEY_PREFIX + secrets.token_urlsafe(API_KEY_RANDOM_BYTES)


def validate_api_key(provided_key: str | None, expected_key: str) -> bool:
    """Whether ``provided_key`` is the expected one, compared as bytes in constant time; any text is a valid input."""
    if provided_key is None:
        return False
    return hmac.compare_digest(_as_bytes(provided_key), _as_bytes(expected_key))


def bearer_token(auth_header: str | None) -> str | None:
    """The token of an ``Authorization`` header: what follows ``Bearer``, or the whole header where that is missing."""
    parts = (auth_header or "").split()
    if len(parts) == 2 and parts[0].lower() == "bearer":
        return parts[1]
    return (auth_header or "").strip() or None


def _as_bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")
