"""The accounts of a bench run: what was promised to the client, and what the trainer saw of it. Times are monotonic."""

import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from hashlib import sha256

PARTIAL_TEXT = "What the engine had when it aborted"
"""Begins each reply that is no whole one."""
_EXPECTED_OUTCOMES = {"success", "interrupted"}


@dataclass
class Ledger:
    """Filled by the client and the trainer of one bench run, by rollout id."""

    promised_at: dict[str, float] = field(default_factory=dict)
    """First 202."""
    replies: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """Bodies of the 202s."""
    never_accepted: set[str] = field(default_factory=set)
    """Inits that the client gave up."""
    runs: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Nonces of the runs that called the policy; each begins with the id of its process."""
    ended: set[int] = field(default_factory=set)
    """Ids of the server processes that were killed, asked to stop, or away for longer than a lease."""
    results: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Digests of the result bodies that arrived, whatever they were answered."""
    delivered_at: dict[str, float] = field(default_factory=dict)
    """First result that the trainer kept."""
    outcomes: dict[str, str] = field(default_factory=dict)
    rewarded_failures: set[str] = field(default_factory=set)
    """A reward without a success, or for a reply that the engine aborted."""
    interrupted_alive: set[str] = field(default_factory=set)
    """Reported as interrupted while the process that ran them was neither killed nor asked to stop."""
    chats_after_result: set[str] = field(default_factory=set)
    chats_after_result_alive: set[str] = field(default_factory=set)
    """Those of a process that was neither killed, nor stopped or cut off for long, nor asked to stop."""

    def promised(self, rollout_id: str, reply: bytes) -> None:
        """An init got its 202."""
        self.promised_at.setdefault(rollout_id, time.monotonic())
        self.replies[rollout_id].add(reply)

    def chatted(self, rollout_id: str, nonce: str) -> None:
        """A run called the policy."""
        self.runs[rollout_id].add(nonce)
        if rollout_id in self.results:
            self.chats_after_result.add(rollout_id)
            if _process(nonce) not in self.ended:
                self.chats_after_result_alive.add(rollout_id)

    def posted(self, rollout_id: str, body: bytes, *, kept: bool) -> None:
        """A result arrived; ``kept`` if the trainer took it."""
        self.results[rollout_id][sha256(body).hexdigest()] += 1
        if not kept:
            return
        self.delivered_at.setdefault(rollout_id, time.monotonic())
        result = json.loads(body)
        outcome = result.get("extra_fields", {}).get("outcome", "none")
        self.outcomes[rollout_id] = outcome
        if "reward" in result and (outcome != "success" or PARTIAL_TEXT.encode() in body):
            self.rewarded_failures.add(rollout_id)
        if outcome == "interrupted" and not self._processes(rollout_id) <= self.ended:
            self.interrupted_alive.add(rollout_id)

    def _processes(self, rollout_id: str) -> set[int]:
        return {_process(nonce) for nonce in self.runs[rollout_id]}

    @property
    def lost(self) -> set[str]:
        """Promised, and no result was ever kept."""
        return self.promised_at.keys() - self.delivered_at.keys()

    @property
    def contradicting(self) -> set[str]:
        """Rollouts whose results differ in a byte."""
        return {rollout_id for rollout_id, digests in self.results.items() if len(digests) > 1}

    @property
    def failed(self) -> set[str]:
        """Ended neither as a success nor as interrupted: nothing that this bench does is a reason to."""
        return {rollout_id for rollout_id, outcome in self.outcomes.items() if outcome not in _EXPECTED_OUTCOMES}

    @property
    def redelivered(self) -> int:
        """Identical repeats of a result."""
        return sum(count - 1 for digests in self.results.values() for count in digests.values())

    @property
    def started_twice(self) -> set[str]:
        """Rollouts that ran more than once."""
        return {rollout_id for rollout_id, nonces in self.runs.items() if len(nonces) > 1}

    @property
    def answered_differently(self) -> set[str]:
        """Rollouts whose repeated init got another reply than the first."""
        return {rollout_id for rollout_id, replies in self.replies.items() if len(replies) > 1}

    def seconds_to_deliver(self, since: float) -> float:
        """From ``since`` until everything that was promised and not delivered then had arrived."""
        open_then = (
            self.delivered_at.get(rollout_id, since)
            for rollout_id, promised_at in self.promised_at.items()
            if promised_at <= since
        )
        return max([0.0, *(delivered_at - since for delivered_at in open_then)])


def _process(nonce: str) -> int:
    return int(nonce.partition("-")[0])
