"""The bytes of results that are on their way: in memory for an attempt, in the journal in between.

Invariants: what is sent are the recorded bytes, or those without the messages once the journal says so, which follow
from them alone; so every process sends the same. All attempts together hold ``BYTES_AT_ONCE``, those to one trainer a
part of it; beside them goes one result that is larger than such a part. Results that wait for another attempt are in
memory within ``WAITING_BYTES``, or because the journal does not have them.
"""

from dataclasses import dataclass, field

from osmosis_ai.rollout.core.offload import call_in_thread
from osmosis_ai.rollout.core.results import TerminalResult, without_messages
from osmosis_ai.rollout.journal import Journal, Payload, UnknownKeyError

BYTES_AT_ONCE = 64 * 1024 * 1024
BYTES_AT_ONCE_PER_TRAINER = BYTES_AT_ONCE // 4
"""So that trainers that do not answer leave room for others."""
WAITING_BYTES = 32 * 1024 * 1024


@dataclass
class Parcel:
    """The bytes of one result."""

    key: str
    recorded_bytes: int
    content: bytes | None = field(default=None, repr=False)
    """What is sent; ``None``: to be loaded from the journal."""
    without_messages: bool = False
    """Whether they are left out."""
    is_on_record: bool = True
    """Whether the journal has it, so that it need not be kept in memory."""
    waiting_bytes: int = 0
    """Its part of ``WAITING_BYTES``."""

    @classmethod
    def of(cls, key: str, result: TerminalResult) -> "Parcel":
        """A result that was just made."""
        return cls(key, len(result.encoded), result.encoded)

    @property
    def size_bytes(self) -> int:
        """What an attempt holds in memory."""
        return self.recorded_bytes if self.content is None else len(self.content)


class Parcels:
    """Those of one event loop."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting_bytes = 0

    async def content_of(self, parcel: Parcel) -> bytes:
        """What is to be sent, in memory from now on.

        Raises:
            Exception: whatever keeps it from being loaded.
        """
        if parcel.content is None:
            recorded = await self._journal.load(parcel.key, Payload.RESULT)
            if recorded is None:
                raise UnknownKeyError(parcel.key)
            parcel.content = (await _shortened(recorded) if parcel.without_messages else None) or recorded
        return parcel.content

    async def without_messages(self, parcel: Parcel) -> bytes | None:
        """What is left of its content without its messages; ``None``: there are none to leave out."""
        return None if parcel.without_messages else await _shortened(await self.content_of(parcel))

    async def leave_out_messages(self, parcel: Parcel, rest: bytes) -> bool:
        """Put on record that ``rest`` is what is sent from now on; ``False``: it must not be.

        Raises:
            JournalError: the journal cannot be used.
        """
        if parcel.is_on_record:
            try:
                if not await self._journal.leave_out_messages(parcel.key):
                    return False
            except UnknownKeyError:  # nothing on record can contradict it
                parcel.is_on_record = False
        self.forget(parcel)
        parcel.content, parcel.without_messages = rest, True
        return True

    def let_go(self, parcel: Parcel) -> None:
        """It waits, perhaps one of many and for a day: what is large stays in the journal."""
        if parcel.content is None or parcel.waiting_bytes or not parcel.is_on_record:
            return
        if self._waiting_bytes + parcel.size_bytes > WAITING_BYTES:
            parcel.content = None
        else:
            parcel.waiting_bytes = parcel.size_bytes
            self._waiting_bytes += parcel.waiting_bytes

    def forget(self, parcel: Parcel) -> None:
        """It is not needed in memory any more."""
        self._waiting_bytes -= parcel.waiting_bytes
        parcel.waiting_bytes, parcel.content = 0, None


async def _shortened(content: bytes) -> bytes | None:
    return await call_in_thread(lambda: without_messages(content))
