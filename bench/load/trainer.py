"""The trainer of the load: plays the model after a delay, and checks each rollout's requests and result."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from bench.load.http1 import Connection, response
from bench.load.script import CALLBACK_KEY, Script
from bench.load.tally import Tally

_CHAT = b"POST /v1/chat/completions "
_COMPLETED = b"POST /v1/rollout/completed "
_ROLLOUT_ID = b'"rollout_id"'
_EDGE_BYTES = 400
"""Of a body, where an id is looked for first: a long conversation is not searched."""
_OK = response(b"200 OK", b'{"status":"ok"}')
_AUTHORIZATION = b"bearer " + CALLBACK_KEY.encode()


@dataclass(slots=True)
class Rollout:
    """One that is under way."""

    number: int
    started: float
    turn: int = 0
    replied: float = 0.0
    """When the last reply was sent; 0 before."""


class Trainer:
    """Knows the rollouts under way; ``on_end`` is called when one has ended, well or not."""

    def __init__(self, script: Script, chat_delay_seconds: float, on_end: Callable[[], None]) -> None:
        self.tally = Tally()
        self.rollouts: dict[bytes, Rollout] = {}
        self.script = script
        self._chat_delay_seconds = chat_delay_seconds
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._ended: set[bytes] = set()

    @property
    def num_ended(self) -> int:
        """Rollouts that have ended, well or not."""
        return len(self._ended)

    def expect(self, number: int) -> bytes:
        """Give the id of a rollout whose init is about to be sent."""
        rollout_id = self.script.rollout_id(number)
        self.tally.started += 1
        self.rollouts[rollout_id] = Rollout(number, time.perf_counter())
        return rollout_id

    def give_up(self, rollout_id: bytes, problem: str) -> None:
        """End a rollout with an error."""
        self.tally.errors[problem] += 1
        if self.rollouts.pop(rollout_id, None) is not None:
            self._ended.add(rollout_id)
            self._on_end()

    def take(self, connection: Connection, head: bytes, body: bytes) -> None:
        """Answer a request."""
        received = time.perf_counter()
        rollout_id = _rollout_id(body)
        rollout = self.rollouts.get(rollout_id)
        if rollout is None:
            problem = "a call after the result" if rollout_id in self._ended else "a call of no rollout of ours"
            self.tally.errors[problem] += 1
            connection.write(_OK)
        elif head.startswith(_CHAT):
            self._chat(connection, rollout, rollout_id, head, body, received)
        elif head.startswith(_COMPLETED):
            self._completed(connection, rollout, rollout_id, head, body, received)
        else:
            self.give_up(rollout_id, f"an unknown request: {head[:60]!r}")
            connection.write(_OK)

    def _chat(
        self, connection: Connection, rollout: Rollout, rollout_id: bytes, head: bytes, body: bytes, received: float
    ) -> None:
        rollout.turn += 1
        if not self._follows(rollout, head, body, received) or rollout.turn > self.script.turns:
            self.give_up(rollout_id, "a chat call that does not follow from the one before")
            connection.write(_OK)
            return
        reply = response(b"200 OK", self.script.reply(rollout.number, rollout.turn))
        if self._chat_delay_seconds:
            self._loop.call_later(self._chat_delay_seconds, self._reply, connection, rollout, reply)
        else:
            self._reply(connection, rollout, reply)

    def _reply(self, connection: Connection, rollout: Rollout, reply: bytes) -> None:
        connection.write(reply)
        rollout.replied = time.perf_counter()

    def _completed(
        self, connection: Connection, rollout: Rollout, rollout_id: bytes, head: bytes, body: bytes, received: float
    ) -> None:
        follows = self._follows(rollout, head, body, received) and rollout.turn == self.script.turns
        connection.write(_OK)
        problem = self._problem(rollout, from_json(body)) if follows else "a result before the last turn"
        if problem:
            self.give_up(rollout_id, problem)
            return
        self.tally.rollout_seconds.append(received - rollout.started)
        del self.rollouts[rollout_id]
        self._ended.add(rollout_id)
        self._on_end()

    def _follows(self, rollout: Rollout, head: bytes, body: bytes, received: float) -> bool:
        if rollout.replied:
            self.tally.turn_seconds.append(received - rollout.replied)
        answered = min(rollout.turn, self.script.turns) - (1 if head.startswith(_CHAT) else 0)
        is_last = answered == self.script.turns
        has_proof = not answered or is_last or body.rfind(self.script.proof(rollout.number, answered)) >= 0
        return has_proof and _AUTHORIZATION in head.lower()

    def _problem(self, rollout: Rollout, result: dict[str, Any]) -> str:
        if result.get("status") != "COMPLETED":
            return f"a rollout ended {result.get('status')}: {result.get('error_message')}"
        if result.get("final_messages") != self.script.conversation(rollout.number):
            return "a result with another conversation"
        return "" if result.get("reward") == 1.0 else f"a result with reward {result.get('reward')}"


class TrainerConnection(Connection):
    """A server's connection to the trainer; ``current`` gives the trainer of the run under way."""

    def __init__(self, current: Callable[[], Trainer]) -> None:
        super().__init__()
        self._current = current

    def message_received(self, head: bytes, body: bytes) -> None:
        self._current().take(self, head, body)


def _rollout_id(body: bytes) -> bytes:
    place = body.find(_ROLLOUT_ID, 0, _EDGE_BYTES)
    if place < 0:
        place = body.rfind(_ROLLOUT_ID, max(0, len(body) - _EDGE_BYTES))
    if place < 0:
        place = body.find(_ROLLOUT_ID)
    start = body.find(b'"', place + len(_ROLLOUT_ID)) + 1
    return body[start : body.find(b'"', start)]
