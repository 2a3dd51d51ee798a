"""What one rollout looked like to the model: token ids, which of them it sampled, and with what log-probability.

A trajectory grows by appending only. The ids of the model's own turns are the ids that were sampled; they are never
made from text again. An agent that changes what was said starts a new segment: the changed history is rendered anew as
a prompt without loss, and the old segment keeps the turns that were sampled in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from training.chat import ChatFormat, Message, is_same


@dataclass(slots=True)
class Segment:
    """One unbroken run of tokens. The three lists have the same length."""

    ids: list[int]
    is_sampled: list[bool]
    logprobs: list[float]
    """Of each sampled token, at the temperature it was sampled with; 0 for all others."""

    @classmethod
    def of_prompt(cls, ids: list[int]) -> "Segment":
        """A segment that has a prompt and nothing sampled."""
        return cls(list(ids), [False] * len(ids), [0.0] * len(ids))

    def append_prompt(self, ids: list[int]) -> None:
        """Add tokens that carry no loss."""
        self.ids += ids
        self.is_sampled += [False] * len(ids)
        self.logprobs += [0.0] * len(ids)

    def append_sampled(self, ids: list[int], logprobs: list[float]) -> None:
        """Add tokens that the model sampled."""
        self.ids += ids
        self.is_sampled += [True] * len(ids)
        self.logprobs += logprobs

    @property
    def sampled_count(self) -> int:
        """Tokens that carry loss."""
        return sum(self.is_sampled)


@dataclass(slots=True)
class Trajectory:
    """All that was sampled for one rollout id."""

    segments: list[Segment] = field(default_factory=list)
    rewrites: int = 0
    """Chat calls that changed what was said before."""
    turns: int = 0
    _seen: list[Message] = field(default_factory=list)
    """The messages of the last call, and the reply to it."""
    _length_before_turn: int = 0

    def open_turn(self, chat: ChatFormat, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> list[int]:
        """Bring the trajectory up to ``messages``; return all ids of the turn's prompt."""
        seen = len(self._seen)
        if self._seen and len(messages) == seen - 1 and _are_same(messages, self._seen[:-1]):
            self._drop_last_turn()
        elif self._seen and len(messages) >= seen and _are_same(messages[:seen], self._seen):
            segment = self.segments[-1]
            segment.append_prompt(chat.continuation(messages[seen:], turn_was_ended=segment.ids[-1] == chat.end))
        else:
            self.rewrites += bool(self._seen)
            self.segments.append(Segment.of_prompt(chat.prompt(messages, tools)))
        self._seen = list(messages)
        self._length_before_turn = len(self.segments[-1].ids)
        return list(self.segments[-1].ids)

    def close_turn(self, ids: list[int], logprobs: list[float], reply: Mapping[str, Any]) -> None:
        """Record what was sampled, and the message that was made of it."""
        self.segments[-1].append_sampled(ids, logprobs)
        self._seen = [*self._seen, reply]
        self.turns += 1

    def _drop_last_turn(self) -> None:
        """The same call again: its first reply never reached the agent, so it is no part of what the agent did."""
        segment = self.segments[-1]
        for values in (segment.ids, segment.is_sampled, segment.logprobs):
            del values[self._length_before_turn :]
        self.turns -= 1

    @property
    def sampled_count(self) -> int:
        """Tokens that carry loss."""
        return sum(segment.sampled_count for segment in self.segments)


def _are_same(messages: list[dict[str, Any]], seen: list[Message]) -> bool:
    return all(is_same(one, other) for one, other in zip(messages, seen, strict=True))
