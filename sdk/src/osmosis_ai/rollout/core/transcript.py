"""A rollout's conversation as it is known from outside the agent, and whether the agent kept to appending.

The trainer has recorded tokens for every message it was sent, so a conversation only grows: an agent that changes or
removes an earlier message trains on tokens that were never there. Each message is copied and encoded once, when it is
first sent, and compared at each later call; comparing shares the strings, so it costs next to nothing.
"""

import json
from typing import Any

from pydantic_core import to_json

from osmosis_ai.rollout.core.jsonable import copy_json
from osmosis_ai.rollout.core.schemas import MessageDict

MAX_NOTED = 10


class Transcript:
    """What was last sent, the reply to it, and what was rewritten since."""

    def __init__(self) -> None:
        self.sent: list[MessageDict] = []
        self.error: Exception | None = None
        self.rewritten: list[str] = []
        self._calls = 0
        self._sent_count = 0
        self.reply: MessageDict | None = None
        self._copies: list[Any] = []
        self._encoded = bytearray()
        self._encoded_count = 0
        self._announced: list[MessageDict] | None = None

    def sending(self, messages: list[MessageDict]) -> str | None:
        """Note the list of a chat call, which the agent goes on appending to; tell what it rewrote, if anything."""
        self._calls += 1
        problem = self._compare(messages, f"before chat call {self._calls}")
        self._copies.extend([copy_json(message) for message in messages[len(self._copies) :]])
        self.sent = self._announced = messages
        self._sent_count = len(messages)
        self.reply = None
        self.error = None
        return problem

    def takes_up(self, messages: list[MessageDict]) -> None:
        """As ``sending``, unless that was just called with the same list."""
        # `RolloutContext.chat` has announced it by now; the client alone, as an agent may use it, has not.
        announced, self._announced = self._announced, None
        if announced is not messages:
            self.sending(messages)
            self._announced = None

    def messages(self) -> list[MessageDict]:
        """What ran so far, the last reply included even where the agent had no time to append it."""
        known = list(self.sent)
        # The list is the agent's own: where it has grown, the reply is in it already.
        if self.reply is not None and len(known) == self._sent_count:
            known.append(self.reply)
        return known

    def check(self, final_messages: list[MessageDict]) -> str | None:
        """Compare a result's messages with what was sent; tell the difference, if there is one."""
        return self._compare(final_messages, f"after chat call {self._calls}")

    def encoded(self) -> bytearray:
        """What was last sent, as the inside of a JSON array; in pydantic's reading of JSON, so a set is a list.

        It is the transcript's own, and grows with the next call.

        Raises:
            ValueError: something cannot be written as JSON (RFC 8259): NaN, a foreign object, a cycle.
        """
        for message in self._copies[self._encoded_count :]:
            self._append(_encode_message(message))
        return self._encoded

    def encoded_result(self, final_messages: list[MessageDict]) -> bytearray:
        """``final_messages`` as the inside of a JSON array, after ``check``: what was sent is not encoded again.

        Raises:
            TypeError, ValueError, RecursionError: a message that was not sent cannot be written as JSON.
        """
        self._copies.extend([copy_json(message) for message in final_messages[len(self._copies) :]])
        for message in self._copies[self._encoded_count :]:
            self._append(json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())
        return self._encoded

    def _append(self, encoded: bytes) -> None:
        if self._encoded_count:
            self._encoded += b","
        self._encoded += encoded
        self._encoded_count += 1

    def _compare(self, messages: list[MessageDict], when: str) -> str | None:
        """A difference is noted, told once, and then the new truth."""
        known = len(self._copies)
        if self._copies == (messages if len(messages) == known else messages[:known]):
            return None
        changed = next(
            (i for i, (old, new) in enumerate(zip(self._copies, messages, strict=False)) if old != new), None
        )
        if changed is None and len(messages) >= known:
            return None
        first = len(messages) if changed is None else changed
        what = "removed" if changed is None else "changed"
        problem = f"messages[{first}] was {what} {when}; a conversation may only be appended to."
        if len(self.rewritten) < MAX_NOTED:
            self.rewritten.append(problem)
        self._copies[first:] = [copy_json(message) for message in messages[first:]]
        if first < self._encoded_count:
            self._encoded = bytearray()
            self._encoded_count = 0
        return problem


def _encode_message(message: Any) -> bytes:
    encoded = to_json(message, inf_nan_mode="constants")
    # JSON has neither. Looked for in the bytes, as encoding twice would cost twice; `json.dumps` decides.
    if b"NaN" in encoded or b"Infinity" in encoded:  # as numbers, or just as words
        json.dumps(message, allow_nan=False, default=str)
    return encoded
