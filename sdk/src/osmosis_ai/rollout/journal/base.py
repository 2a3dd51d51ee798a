"""The contract of a journal, kept by ``MemoryJournal``, ``SqliteJournal`` and ``PostgresJournal`` alike.

The order that makes the promise hold: ``accept`` before the 202 leaves, ``finish`` before delivery starts, ``settle``
after the acknowledgement. Each opened journal is an *owner*; a record belongs to the owner that runs or delivers it,
and only a record whose owner is gone can be claimed.

Records are small, whatever they promise: what may be large is loaded by itself (``load``), one at a time.
"""

import base64
import hmac
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Self

from osmosis_ai.rollout.journal.clock import Timeline
from osmosis_ai.rollout.journal.errors import JournalError
from osmosis_ai.rollout.journal.retention import Retention, is_over
from osmosis_ai.rollout.journal.types import Acceptance, JournalRecord, Payload, RolloutState

CLAIM_LIMIT = 200
RECORDS_LIMIT = 100
SECRET_BYTES = 32


def _ignore(*_: object) -> None:
    """Nobody is told."""


class Journal(ABC):
    """Opened once, used by many tasks, closed once; it may be opened again and is then a new owner.

    Each method raises ``JournalError`` if the journal is not open or could not do what was asked, and then nothing of
    it was done. Cancelling a caller does not undo its operation, which is carried out all the same: whoever may be
    cancelled during ``accept`` shields it, or the rollout has nobody to run it until this owner is gone.
    """

    def __init__(self, retention: Retention | None = None) -> None:
        self._retention = retention or Retention()
        self._timeline: Timeline | None = None
        self._secret = secrets.token_bytes(SECRET_BYTES)
        """What is on disk has its own, which outlasts this object."""
        self.on_problem: Callable[[str | None], None] = _ignore
        """Called, in any thread, whenever ``problem`` has changed."""
        self.on_abandoned: Callable[[], None] = _ignore
        """Called, in any thread, when there may be something for ``claim_abandoned``."""
        self.on_cancel: Callable[[list[str]], None] = _ignore
        """Called, in any thread, with keys of this owner that others have asked it to cancel (``ask_cancel``)."""
        self.on_backlog: Callable[[int, float], None] = _ignore
        """Called, in any thread, every few seconds by a journal of several machines: how many rollouts of all owners
        have no result yet, and for how many seconds the oldest of them."""
        self.on_lost: Callable[[], None] = _ignore
        """Called, in any thread, when another has taken over all that was this owner's; it goes on with nothing."""

    @property
    def problem(self) -> str | None:
        """Why nothing new can be promised although the journal is open, in a sentence; seen within about a second."""
        return None

    def is_over(self, record: JournalRecord) -> bool:
        """Whether ``record`` has outlived its retention, so that its key is free."""
        return is_over(record, self._retention.cutoffs(self._require_timeline()))

    def served_since(self, time: float) -> float:
        """For how many seconds since ``time`` (unix seconds) a process had the journal open, as far as is proven."""
        return self._require_timeline().served_since(time)

    def now(self) -> float:
        """The journal's time (unix seconds), by which its records are dated; it never runs back."""
        return self._require_timeline().now()

    def sign(self, text: str) -> str:
        """43 characters (HMAC-SHA256, for URLs) that follow from ``text`` and a secret of the journal.

        The same from every process that has it open, for as long as it exists, and from no other journal.
        """
        self._require_timeline()
        digest = hmac.digest(self._secret, text.encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def in_doubt(self) -> Awaitable[None] | None:
        """What to await before a chat call; ``None`` where nobody can have taken over what runs here unnoticed.

        It ends when that is known, or cannot be known for the time being; ``on_lost`` is called before. Never raises.
        """
        return None

    def _require_timeline(self) -> Timeline:
        if self._timeline is None:
            raise JournalError("The journal is not open: open it first.")
        return self._timeline

    @abstractmethod
    async def open(self) -> None:
        """Make the journal usable, as a new owner."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what was asked, then give up all records that are not settled. No-op on a closed journal."""

    @abstractmethod
    async def accept(self, acceptance: Acceptance) -> JournalRecord | None:
        """Promise a rollout; ``None`` means that it is on record and this owner's to run.

        A record means that the key is taken and nothing was written; compare its fingerprint. A record that has
        outlived its retention is replaced.
        """

    @abstractmethod
    async def finish(self, key: str, result: bytes) -> bool:
        """Record the result; true means that it is on record and this owner's to deliver.

        False means that another result stands, or that another owner has taken the record over, and that this one must
        not be delivered: the first wins. The same result again, from the same owner, is true: it may not have been told
        that it was recorded. Raises ``UnknownKeyError``.
        """

    @abstractmethod
    async def settle(self, key: str, state: RolloutState, *, attempts: int, error: str | None = None) -> bool:
        """Record that the result was ``DELIVERED`` or is ``UNDELIVERABLE``; false if that changed nothing.

        Any owner may, not only the record's: a trainer that fetches its result (``note_poll``) asks whom it reaches.
        An acknowledgement outranks giving up, whichever comes first; between machines, only its owner gives a record
        up. Raises ``UnknownKeyError``, and ``JournalError`` for a rollout without a result or for another state.
        """

    @abstractmethod
    async def note_attempt(self, key: str, *, attempts: int, error: str) -> None:
        """Note a failed delivery of a finished rollout. For the operator's eyes: may be written later, or be lost."""

    @abstractmethod
    async def note_poll(self, key: str) -> None:
        """Note that a trainer asks now for this rollout's result (``JournalRecord.polled_at``); any owner may.

        For whoever runs it in another process, so that its lease does not run out (``docs/protocol-0.3.md``). May be
        written a moment later, or be lost with the process. Nothing, if there is no such record.
        """

    @abstractmethod
    async def leave_out_messages(self, key: str) -> bool:
        """Record that the result goes out without its messages from now on; true means that this is on record.

        To be called before it goes out so. It is never taken back, and the recorded result stays as it is. False for a
        rollout that is not finished, and for one that was reopened: a trainer may have acknowledged the whole result.
        Raises ``UnknownKeyError``.
        """

    @abstractmethod
    async def reopen(self, key: str) -> JournalRecord | None:
        """Make a settled record finished again, this owner's to deliver; ``None`` if there is no settled record."""

    @abstractmethod
    async def get(self, key: str) -> JournalRecord | None:
        """The record under ``key``, if any."""

    @abstractmethod
    async def load(self, key: str, payload: Payload) -> bytes | None:
        """A payload of the record under ``key``; ``None`` if there is no such record, or it does not have it."""

    @abstractmethod
    async def find(self, rollout_id: str) -> list[JournalRecord]:
        """The records of a rollout id (several, if it came under several keys), newest first."""

    @abstractmethod
    async def records(
        self, states: Iterable[RolloutState] | None = None, *, limit: int = RECORDS_LIMIT, offset: int = 0
    ) -> list[JournalRecord]:
        """A page of the records in any of ``states`` (default: all), newest first."""

    @abstractmethod
    async def claim_abandoned(self, limit: int = CLAIM_LIMIT) -> list[JournalRecord]:
        """Take over up to ``limit`` accepted or finished records whose owner is gone, each by exactly one claimer.

        Call it until it returns none: at startup, and now and then for the sake of other processes that died.
        """

    async def ask_cancel(
        self, ids: Iterable[str], prefix: str | None, all_of_them: bool, *, spaces: Sequence[str] = ("",)
    ) -> list[str] | None:
        """Ask the other owners of this journal to cancel what they run of the rollouts ``ids``, those whose ids begin
        with ``prefix``, or all, as far as their keys begin with one of ``spaces``; the ids of those. ``None``: this
        journal cannot ask anybody."""
        return None

    @abstractmethod
    async def counts(self) -> dict[RolloutState, int]:
        """The number of records in each state, zeros included."""

    @abstractmethod
    async def oldest_unsettled(self) -> float | None:
        """When the oldest record that is not settled was accepted (unix seconds)."""

    @abstractmethod
    async def prune(self) -> int:
        """Remove the records that have outlived their retention, give space back, return how many were removed."""

    @abstractmethod
    async def purge(self, *, keys: Iterable[str] = (), states: Iterable[RolloutState] = ()) -> int:
        """Remove, on an operator's word, the records under ``keys`` and those in ``states``; return how many went.

        A record that is not settled stays while its owner lives, this one included: somebody is working on it.
        """

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
