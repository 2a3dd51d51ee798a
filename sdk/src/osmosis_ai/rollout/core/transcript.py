"""A rollout's conversation as it is known from outside the agent, and whether the agent kept to appending.

The trainer has recorded tokens for every message it was sent and every reply it gave, so a conversation only grows: an
agent that changes or removes one of them trains on tokens that were never there. Each message is copied and encoded
once, when it is first sent or received, and compared at each later call; comparing shares the strings, so it costs next
to nothing. What comes back spelled otherwise, but says the same (``core/sameness.py``), goes out as it was recorded.
"""

import json
from typing import Any

from pydantic_core import to_json

from osmosis_ai.rollout.core.jsonable import copy_json, strict_json
from osmosis_ai.rollout.core.sameness import difference
from osmosis_ai.rollout.core.schemas import MessageDict

MAX_NOTED = 10


class Transcript:
    """What was last sent, the replies to it, and what was rewritten since."""

    def __init__(self) -> None:
        self.sent: list[MessageDict] = []
        self.error: Exception | None = None
        self.rewritten: list[str] = []
        self._calls = 0
        self._sent_count = 0
        # Several where calls overlapped: the agent goes on from one of them.
        self._replies: list[MessageDict] = []
        self._given: MessageDict | None = None
        self._copies: list[Any] = []
        self._is_respelled = False
        self._encoded = bytearray()
        self._encoded_count = 0
        self._announced: list[MessageDict] | None = None

    @property
    def reply(self) -> MessageDict | None:
        """The newest reply to what was last sent."""
        return self._replies[-1] if self._replies else None

    @property
    def outgoing(self) -> list[MessageDict]:
        """What was last sent, as it was recorded: the agent's own list unless that spells a message otherwise."""
        if not self._is_respelled:
            return self.sent
        self._announced = list(self._copies)
        return self._announced

    def sending(self, messages: list[MessageDict]) -> str | None:
        """Note the list of a chat call, which the agent goes on appending to; tell what it rewrote, if anything."""
        self._calls += 1
        problem = self._compare(messages, is_call=True)
        self._copies.extend([copy_json(message) for message in messages[len(self._copies) :]])
        self.sent = self._announced = messages
        self._sent_count = len(messages)
        self._replies = []
        self._given = None
        self.error = None
        return problem

    def takes_up(self, messages: list[MessageDict]) -> None:
        """As ``sending``, unless that was just called with the same list."""
        # `RolloutContext.chat` has announced it by now; the client alone, as an agent may use it, has not.
        announced, self._announced = self._announced, None
        if announced is not messages:
            self.sending(messages)
            self._announced = None

    def replied(self, message: MessageDict, sent_count: int) -> None:
        """Note the reply to a call of ``sent_count`` messages, unless a longer call has overtaken it."""
        if sent_count == self._sent_count:
            self._given = message
            try:
                # The agent may change in place what it was given.
                self._replies.append(copy_json(message))
            except RecursionError:
                self._replies.append(message)

    def messages(self) -> list[MessageDict]:
        """What ran so far, the last reply included even where the agent had no time to append it."""
        known = list(self.sent)
        if self._is_respelled:
            known[: len(self._copies)] = copy_json(self._copies)
        # The list is the agent's own: where it has grown, the reply is in it already.
        if self._replies and len(known) == self._sent_count:
            known.append(copy_json(self._replies[-1]))
        return known

    def check(self, final_messages: list[MessageDict]) -> str | None:
        """Compare a result's messages with what was sent and replied; tell the difference, if there is one."""
        return self._compare(final_messages, is_call=False)

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
            self._append(strict_json(message))
        return self._encoded

    def _append(self, encoded: bytes) -> None:
        if self._encoded_count:
            self._encoded += b","
        self._encoded += encoded
        self._encoded_count += 1

    def _compare(self, messages: list[MessageDict], *, is_call: bool) -> str | None:
        """A difference is noted, told once, and then the new truth."""
        known = len(self._copies)
        if self._copies == (messages if len(messages) == known else messages[:known]):
            found = None
        else:
            found = self._change_among(messages)
        if found is None and self._replies and known == self._sent_count:
            found = self._change_of_reply(messages, is_call=is_call)
        if found is None:
            return None
        first, what = found
        when = "before" if is_call else "after"
        problem = f"{what} {when} chat call {self._calls}; a conversation may only be appended to."
        if len(self.rewritten) < MAX_NOTED:
            self.rewritten.append(problem)
        self._copies[first:] = [copy_json(message) for message in messages[first:]]
        if first < self._encoded_count:
            self._encoded = bytearray()
            self._encoded_count = 0
        return problem

    def _change_among(self, messages: list[MessageDict]) -> tuple[int, str] | None:
        """Where what was sent has changed, and how; ``None`` where it says the same in another spelling."""
        for index, (old, new) in enumerate(zip(self._copies, messages, strict=False)):
            if changed := difference(old, new):
                return index, f"messages[{index}] was changed ({changed})"
        if len(messages) < len(self._copies):
            return len(messages), f"messages[{len(messages)}] was removed"
        self._is_respelled = True
        return None

    def _change_of_reply(self, messages: list[MessageDict], *, is_call: bool) -> tuple[int, str] | None:
        """The same for what follows what was sent: it must be the reply. A result may do without the last one."""
        index = self._sent_count
        if len(messages) <= index:
            return (index, f"messages[{index}], a reply of the model, was left out") if is_call else None
        changed = None
        for reply in reversed(self._replies):
            changed = difference(reply, messages[index])
            if changed is None:
                # As it came, or made anew by the agent: then its fields may be in another order.
                self._is_respelled |= messages[index] is not self._given
                self._copies.append(reply)
                return None
        return index, f"messages[{index}], a reply of the model, was changed ({changed})"


def _encode_message(message: Any) -> bytes:
    encoded = to_json(message, inf_nan_mode="constants")
    # JSON has neither. Looked for in the bytes, as encoding twice would cost twice; `json.dumps` decides.
    if b"NaN" in encoded or b"Infinity" in encoded:  # as numbers, or just as words
        json.dumps(message, allow_nan=False, default=str)
    return encoded
