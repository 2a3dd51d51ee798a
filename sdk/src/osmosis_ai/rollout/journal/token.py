"""The token of a polling lease (``docs/protocol-0.3.md``): it follows from its rollout and the journal's secret.

Invariants: nothing keeps it, so that whoever has the journal gives the same one, after a restart and on another
machine; another journal gives another. Of two rollouts that have an id one after the other, those with other bodies
have other tokens. What an older SDK has recorded with its reply, or another journal has given, stays as it is: such a
reply has its token, and that counts.
"""

from typing import Any

from pydantic_core import from_json, to_json

from osmosis_ai.rollout.journal.base import Journal

FIELD = "polling_lease_token"
OF_A_START = "polling_lease_timeout_sec"
"""What every reply to a start has, and none to an init."""
_PURPOSE = "polling lease"


def token_of(journal: Journal, key: str, fingerprint: str) -> str:
    """That of the rollout which ``journal`` has, or will have, under ``key`` with ``fingerprint``."""
    return journal.sign(f"{_PURPOSE}\0{fingerprint}\0{key}")


def token_in(reply: bytes) -> str | None:
    """The one that a recorded ``reply`` brings itself."""
    token = _fields(reply).get(FIELD)
    return token if isinstance(token, str) and token else None


def is_reply_to_start(reply: bytes) -> bool:
    """Whether it is one of 0.3, to which a token belongs."""
    return OF_A_START in _fields(reply)


def with_token(reply: bytes, token: str) -> bytes:
    """``reply``, a start's as it is recorded, with ``token`` unless it brings its own."""
    return to_json({FIELD: token, **_fields(reply)})


def _fields(reply: bytes) -> dict[str, Any]:
    try:
        fields = from_json(reply)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
