"""The journal in memory: the same rules, gone with the process. No method awaits, so each is atomic in its loop."""

import secrets
from collections import deque
from collections.abc import Iterable
from dataclasses import fields
from operator import attrgetter

from osmosis_ai.rollout.journal.base import CLAIM_LIMIT, RECORDS_LIMIT, Journal
from osmosis_ai.rollout.journal.clock import Clock, Timeline
from osmosis_ai.rollout.journal.errors import JournalError, UnknownKeyError
from osmosis_ai.rollout.journal.retention import Retention, is_over
from osmosis_ai.rollout.journal.types import (
    SETTLED,
    UNSETTLED,
    Acceptance,
    JournalRecord,
    Move,
    Payload,
    RolloutState,
    next_state,
    settling_move,
    storable_error,
)

KEPT_RESULTS = 1_000
KEPT_RESULT_BYTES = 64 * 1024 * 1024
KEPT_RECORDS = 100_000
_FIELDS = tuple(field.name for field in fields(JournalRecord))
_values_of = attrgetter(*_FIELDS)


class MemoryJournal(Journal):
    """A journal for one process and one event loop at a time.

    Records stay when it is closed, so that what was cut off can be claimed when it is opened again. Memory is bounded:
    only the last ``kept_results`` delivered records keep their result, within ``KEPT_RESULT_BYTES``, and the last
    ``kept_records`` stay at all.
    """

    def __init__(
        self,
        *,
        retention: Retention | None = None,
        clock: Clock | None = None,
        kept_results: int = KEPT_RESULTS,
        kept_records: int = KEPT_RECORDS,
    ) -> None:
        super().__init__(retention)
        self._timeline: Timeline = Timeline(clock or Clock())
        self._kept_results = kept_results
        self._kept_records = kept_records
        self._delivered: deque[str] = deque()
        self._delivered_with_result: deque[tuple[str, int]] = deque()
        self._delivered_bytes = 0
        self._owner: str | None = None
        self._records: dict[str, JournalRecord] = {}
        self._payloads: dict[str, dict[Payload, bytes]] = {}
        self._keys_by_rollout_id: dict[str, list[str]] = {}

    async def open(self) -> None:
        if self._owner is not None:
            raise JournalError("The journal is open already: close it first.")
        # Another each time: what the last one left unsettled is then abandoned, as after a crash.
        self._owner = secrets.token_hex(16)

    async def close(self) -> None:
        self._owner = None

    async def accept(self, acceptance: Acceptance) -> JournalRecord | None:
        owner = self._require_owner()
        standing = self._records.get(acceptance.key)
        if standing is not None:
            if not self.is_over(standing):
                return standing
            # Not overwritten: the order of the dictionary is that of acceptance, which `records` relies on.
            self._remove(standing)
        self._records[acceptance.key] = JournalRecord(
            key=acceptance.key,
            rollout_id=acceptance.rollout_id,
            fingerprint=acceptance.fingerprint,
            server_url=acceptance.server_url,
            api_key=acceptance.api_key,
            state=RolloutState.ACCEPTED,
            owner=owner,
            accepted_at=self._timeline.now(),
            payload_bytes=len(acceptance.request),
        )
        self._payloads[acceptance.key] = {
            Payload.INIT_REPLY: acceptance.init_reply,
            Payload.REQUEST: acceptance.request,
        }
        self._keys_by_rollout_id.setdefault(acceptance.rollout_id, []).append(acceptance.key)
        return None

    async def finish(self, key: str, result: bytes) -> bool:
        owner = self._require_owner()
        state = self._next_state(key, Move.FINISH)
        if state is None:
            record, stands = self._records[key], self._payloads[key].get(Payload.RESULT)
            return (record.state, record.owner, stands) == (RolloutState.FINISHED, owner, result)
        self._change(key, state=state, owner=owner, finished_at=self._timeline.now(), payload_bytes=len(result))
        payloads = self._payloads[key]
        del payloads[Payload.REQUEST]
        payloads[Payload.RESULT] = result
        return True

    async def settle(self, key: str, state: RolloutState, *, attempts: int, error: str | None = None) -> bool:
        self._require_owner()
        settled = self._next_state(key, settling_move(state))
        if settled is None:
            return False
        self._change(
            key,
            state=settled,
            settled_at=self._timeline.now(),
            delivery_attempts=attempts,
            last_error=storable_error(error),
        )
        if settled is RolloutState.DELIVERED:
            self._bound_memory(key)
        return True

    async def note_attempt(self, key: str, *, attempts: int, error: str) -> None:
        self._require_owner()
        record = self._records.get(key)
        if record is not None and record.state is RolloutState.FINISHED:
            self._change(key, delivery_attempts=attempts, last_error=storable_error(error))

    async def note_poll(self, key: str) -> None:
        self._require_owner()
        if key in self._records:
            self._change(key, polled_at=self._timeline.now())

    async def leave_out_messages(self, key: str) -> bool:
        self._require_owner()
        record = self._records.get(key)
        if record is None:
            raise UnknownKeyError(key)
        if record.state is not RolloutState.FINISHED or record.reopened_at is not None:
            return False
        self._change(key, without_messages=True)
        return True

    async def reopen(self, key: str) -> JournalRecord | None:
        owner = self._require_owner()
        state = self._next_state(key, Move.REOPEN) if key in self._records else None
        if state is None:
            return None
        return self._change(
            key,
            state=state,
            owner=owner,
            reopened_at=self._timeline.now(),
            settled_at=None,
            delivery_attempts=0,
            last_error=None,
        )

    async def get(self, key: str) -> JournalRecord | None:
        self._require_owner()
        return self._records.get(key)

    async def load(self, key: str, payload: Payload) -> bytes | None:
        self._require_owner()
        return self._payloads.get(key, {}).get(payload)

    async def find(self, rollout_id: str) -> list[JournalRecord]:
        self._require_owner()
        return [self._records[key] for key in reversed(self._keys_by_rollout_id.get(rollout_id, []))]

    async def records(
        self, states: Iterable[RolloutState] | None = None, *, limit: int = RECORDS_LIMIT, offset: int = 0
    ) -> list[JournalRecord]:
        self._require_owner()
        wanted = frozenset(RolloutState if states is None else states)
        found = [record for record in reversed(self._records.values()) if record.state in wanted]
        return found[offset : offset + limit]

    async def claim_abandoned(self, limit: int = CLAIM_LIMIT) -> list[JournalRecord]:
        owner = self._require_owner()
        abandoned = [record for record in self._records.values() if record.state in UNSETTLED and record.owner != owner]
        return [self._change(record.key, owner=owner) for record in abandoned[:limit]]

    async def counts(self) -> dict[RolloutState, int]:
        self._require_owner()
        counts = dict.fromkeys(RolloutState, 0)
        for record in self._records.values():
            counts[record.state] += 1
        return counts

    async def oldest_unsettled(self) -> float | None:
        self._require_owner()
        return min((r.accepted_at for r in self._records.values() if r.state in UNSETTLED), default=None)

    async def prune(self) -> int:
        self._require_owner()
        cutoffs = self._retention.cutoffs(self._timeline)
        return self._remove_all(record for record in self._records.values() if is_over(record, cutoffs))

    async def purge(self, *, keys: Iterable[str] = (), states: Iterable[RolloutState] = ()) -> int:
        owner = self._require_owner()
        doomed_keys, doomed_states = frozenset(keys), frozenset(states)
        return self._remove_all(
            record
            for record in self._records.values()
            if (record.key in doomed_keys or record.state in doomed_states)
            and (record.state in SETTLED or record.owner != owner)
        )

    def _bound_memory(self, delivered_key: str) -> None:
        self._delivered.append(delivered_key)
        size_bytes = self._records[delivered_key].payload_bytes
        self._delivered_with_result.append((delivered_key, size_bytes))
        self._delivered_bytes += size_bytes
        while len(self._delivered_with_result) > self._kept_results or self._delivered_bytes > KEPT_RESULT_BYTES:
            key, size_bytes = self._delivered_with_result.popleft()
            self._delivered_bytes -= size_bytes
            record = self._records.get(key)
            # Its key may have been reopened since, or have gone to another rollout.
            if record is not None and record.state is RolloutState.DELIVERED:
                self._change(record.key, payload_bytes=0)
                self._payloads[record.key].pop(Payload.RESULT, None)
        if len(self._delivered) > self._kept_records:
            record = self._records.get(self._delivered.popleft())
            if record is not None and record.state is RolloutState.DELIVERED:
                self._remove(record)

    def _require_owner(self) -> str:
        if self._owner is None:
            raise JournalError("The journal is not open: open it first.")
        return self._owner

    def _next_state(self, key: str, move: Move) -> RolloutState | None:
        record = self._records.get(key)
        return next_state(key, None if record is None else record.state, move)

    def _change(self, key: str, **values: object) -> JournalRecord:
        # `dataclasses.replace` takes four times as long, twice a rollout.
        changed = JournalRecord(*map(values.get, _FIELDS, _values_of(self._records[key])))  # type: ignore[arg-type]
        self._records[key] = changed
        return changed

    def _remove(self, record: JournalRecord) -> None:
        del self._records[record.key], self._payloads[record.key]
        keys = self._keys_by_rollout_id[record.rollout_id]
        keys.remove(record.key)
        if not keys:
            del self._keys_by_rollout_id[record.rollout_id]

    def _remove_all(self, records: Iterable[JournalRecord]) -> int:
        # A list first: what is removed is being walked through.
        doomed = list(records)
        for record in doomed:
            self._remove(record)
        return len(doomed)
