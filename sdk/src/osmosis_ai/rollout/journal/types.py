"""The journal's vocabulary.

A rollout is accepted, then finished (its result is known), then delivered or found undeliverable::

    accepted -- finish --> finished -- acknowledge --> delivered
                            |    ^                        |  ^
                      give up    `-------- reopen --------'  |
                            |    |                           |
                            v    |                           |
                       undeliverable ------ acknowledge -----'

``TRANSITIONS`` is the whole of it. ``next_state`` alone decides by it; ``starts_of`` and ``leads_to`` say it to a
database that decides by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from osmosis_ai.rollout.core.text import encodable
from osmosis_ai.rollout.journal.errors import JournalError, UnknownKeyError


class RolloutState(StrEnum):
    ACCEPTED = "accepted"
    """Promised with a 202; no result yet."""
    FINISHED = "finished"
    """The result is known and not yet acknowledged."""
    DELIVERED = "delivered"
    """The trainer has acknowledged the result."""
    UNDELIVERABLE = "undeliverable"
    """The trainer refused the result for good, or its deadline has passed; kept for the operator."""


UNSETTLED = frozenset({RolloutState.ACCEPTED, RolloutState.FINISHED})
SETTLED = frozenset({RolloutState.DELIVERED, RolloutState.UNDELIVERABLE})


class Move(StrEnum):
    FINISH = "finish"
    ACKNOWLEDGE = "acknowledge"
    GIVE_UP = "give_up"
    REOPEN = "reopen"


TRANSITIONS: Mapping[Move, Mapping[RolloutState, RolloutState]] = MappingProxyType(
    {
        Move.FINISH: {RolloutState.ACCEPTED: RolloutState.FINISHED},
        Move.ACKNOWLEDGE: {
            RolloutState.FINISHED: RolloutState.DELIVERED,
            # An acknowledgement is a fact, even if somebody has given up in the meantime.
            RolloutState.UNDELIVERABLE: RolloutState.DELIVERED,
        },
        Move.GIVE_UP: {RolloutState.FINISHED: RolloutState.UNDELIVERABLE},
        Move.REOPEN: {
            RolloutState.DELIVERED: RolloutState.FINISHED,
            RolloutState.UNDELIVERABLE: RolloutState.FINISHED,
        },
    }
)
"""For each move, the states it starts from and where it leads; from any other state it changes nothing."""

SETTLING_MOVES: Mapping[RolloutState, Move] = MappingProxyType(
    {RolloutState.DELIVERED: Move.ACKNOWLEDGE, RolloutState.UNDELIVERABLE: Move.GIVE_UP}
)


def next_state(key: str, state: RolloutState | None, move: Move) -> RolloutState | None:
    """Where ``move`` takes the record of ``key`` from ``state``; ``None``: it stays as it is.

    Raises ``UnknownKeyError`` if ``state`` is ``None`` (no such record), ``JournalError`` if a rollout is to be settled
    before it has a result.
    """
    if state is None:
        raise UnknownKeyError(key)
    if state is RolloutState.ACCEPTED and move in SETTLING_MOVES.values():
        raise JournalError(f"The rollout under the key {key!r} has no result yet: finish it before settling it.")
    return TRANSITIONS[move].get(state)


def starts_of(move: Move) -> str:
    """The states that ``move`` starts from, with commas."""
    return ",".join(TRANSITIONS[move])


def leads_to(move: Move) -> RolloutState:
    """The state that ``move`` ends in."""
    (target,) = set(TRANSITIONS[move].values())
    return target


def settling_move(state: RolloutState) -> Move:
    """The move that ends in ``state``. Raises ``JournalError`` unless that is a settled state."""
    if state not in SETTLING_MOVES:
        raise JournalError(f"A rollout cannot be settled as {state.value!r}: use 'delivered' or 'undeliverable'.")
    return SETTLING_MOVES[state]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What is promised with a 202. Raises ``JournalError`` if a text field is not valid Unicode or the key is empty."""

    key: str
    """The idempotency key, unique in the journal."""
    rollout_id: str
    fingerprint: str
    """Of the init body, so that the same key with another body is noticed."""
    server_url: str
    """The trainer's base URL, where the result goes."""
    api_key: str | None = field(repr=False)
    """Of the calls to the trainer, not the server's own. Kept until the record is pruned: a redelivery needs it."""
    init_reply: bytes = field(repr=False)
    """Body of the 202, given again to a repeated init."""
    request: bytes = field(repr=False)
    """The init body as JSON, from which an interrupted rollout is reported."""

    def __post_init__(self) -> None:
        if not self.key:
            raise JournalError("A rollout cannot be accepted under an empty key: give its idempotency key or its id.")
        try:
            f"{self.key}{self.rollout_id}{self.fingerprint}{self.server_url}{self.api_key}".encode()
        except UnicodeEncodeError as error:
            bad = error.object[error.start]
            names = ("key", "rollout_id", "fingerprint", "server_url", "api_key")
            name = next(name for name in names if bad in (getattr(self, name) or ""))
            raise JournalError(f"The field {name} of the rollout is not valid Unicode: correct it.") from None


class Payload(StrEnum):
    """What a record has that may be large, so that it is loaded by itself (``Journal.load``)."""

    INIT_REPLY = "init_reply"
    """As in ``Acceptance``."""
    REQUEST = "request"
    """As in ``Acceptance``; gone from the moment the result is known: nothing needs it any more."""
    RESULT = "result"
    """The result for the trainer, as it was recorded; from the finish on."""


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """What the journal knows of one rollout, but for its payloads. Times are unix seconds."""

    key: str
    rollout_id: str
    fingerprint: str
    server_url: str
    api_key: str | None = field(repr=False)
    state: RolloutState
    owner: str
    """Token of the opened journal that runs or delivers it, or did so last."""
    accepted_at: float
    finished_at: float | None = None
    reopened_at: float | None = None
    settled_at: float | None = None
    delivery_attempts: int = 0
    """Since it was finished or last reopened."""
    last_error: str | None = None
    """Of the last delivery attempt that failed, at most ``MAX_ERROR_LENGTH`` characters."""
    payload_bytes: int = 0
    """Of what is owed: of the request while accepted, of the result from then on; 0 if that is gone."""
    without_messages: bool = False
    """Whether the result goes out without its messages, which the trainer has refused (``docs/protocol.md``, 5.2)."""

    polled_at: float | None = None
    """When a trainer last asked another process than the one that runs it for the result (``Journal.note_poll``)."""

    @property
    def deliverable_since(self) -> float | None:
        """When delivery began, from which its deadline counts: the last reopening, else the finish."""
        return self.reopened_at if self.reopened_at is not None else self.finished_at


MAX_ERROR_LENGTH = 1000


def storable_error(error: str | None) -> str | None:
    """``error`` as it is kept: valid Unicode and at most ``MAX_ERROR_LENGTH`` characters."""
    return None if error is None else encodable(error[:MAX_ERROR_LENGTH], errors="replace")
