"""A script in a model's place: a list of replies, or a function of the messages. No key, no network, no randomness.

::

    ScriptedPolicy([tool_call("search", words="red island"), "Answer: Ostwick"])   # the first reply, the second

    class Reader(ScriptedPolicy):
        def reply(self, messages):                                                 # or "async def"
            return "Answer: Ostwick" if messages[-1]["role"] == "tool" else tool_call("search", words="red")

``osmosis trainer --policy policy:Reader`` plays the trainer with it; so do ``test``, ``eval`` and ``conformance``, and
``completer_of(Reader)`` in a program. What it says depends on the messages alone, so a call that is repeated gets the
same answer.
"""

import inspect
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import MessageDict, OpenAIFunctionToolSchema, tool_as_json
from osmosis_ai.rollout.core.text import cut, described, redacted
from osmosis_ai.rollout.core.where import place_of
from osmosis_ai.rollout.trainer.counted_calls import CountedCalls

__all__ = ["Reply", "ScriptedPolicy", "tool_call"]

MAX_FAILURE_CHARACTERS = 400

Reply = str | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""What a script says: a text, a tool call or several of ``tool_call``, or a whole assistant message."""
Script = Sequence[Reply] | Callable[[list[MessageDict]], "Reply | Awaitable[Reply]"]


def tool_call(name: str, /, **arguments: Any) -> dict[str, Any]:
    """A call of the tool ``name``, as a reply of a ``ScriptedPolicy``."""
    return {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


class ScriptedPolicy(CountedCalls):
    """Meets ``LLMClientProtocol``; a subclass sets ``replies`` or overrides ``reply``.

    ``token_ids`` and ``logprobs`` of its results are empty; tokens are counted as one for every four characters.

    Args:
        script: the replies in their order, or a function of the messages that gives the next.
    """

    replies: Sequence[Reply] = ()
    """The n-th answers a conversation that has n - 1 messages of the assistant."""

    def __init__(self, script: Script | None = None) -> None:
        super().__init__()
        self.tools: list[dict[str, Any]] = []
        """What is offered, as JSON."""
        self._function = script if callable(script) else None
        if script is not None and self._function is None:
            self.replies = list(script)  # type: ignore[arg-type]  # it is no function

    def reply(self, messages: list[MessageDict]) -> "Reply | Awaitable[Reply]":
        """What to say after ``messages``; may be a coroutine function.

        Raises:
            IndexError: the script has no such reply.
        """
        if self._function is not None:
            return self._function(messages)
        turn = _turn(messages)
        if turn >= len(self.replies):
            raise IndexError(f"the script has {len(self.replies)} replies and was asked for number {turn + 1}: add it")
        return self.replies[turn]

    async def chat_completions(self, messages: list[MessageDict], **kwargs: Any) -> CompletionsResult:
        """The next assistant message; finish reason ``tool_calls`` or ``stop``. ``kwargs`` are ignored.

        Raises:
            TypeError: ``reply`` gave something else than a ``Reply``.
        """
        started_seconds = time.perf_counter()
        said = self.reply(messages)
        message = _message(await said if inspect.isawaitable(said) else said, _turn(messages))
        return self._counted_result(messages, message, started_seconds)

    def set_tools(self, tools: Iterable[OpenAIFunctionToolSchema | Mapping[str, Any]]) -> None:
        """Offer ``tools`` (schema objects or their JSON)."""
        self.tools = [tool_as_json(tool) for tool in tools]

    def clear_tools(self) -> None:
        """Offer no tools."""
        self.tools = []


def failure_of_policy(error: BaseException) -> str:
    """``The policy failed: KeyError: 'x' (policy.py:12 in reply)``, without secrets."""
    place = place_of(error)
    what = cut(redacted(described(error)), MAX_FAILURE_CHARACTERS)
    return f"The policy failed: {what}{f' ({place})' if place else ''}"


def _turn(messages: Sequence[MessageDict]) -> int:
    return sum(message.get("role") == "assistant" for message in messages)


def _message(said: Any, turn: int) -> MessageDict:
    if isinstance(said, str):
        return {"role": "assistant", "content": said}
    if isinstance(said, Mapping) and "function" not in said:
        return {"role": "assistant", "content": None, **said}
    calls = [said] if isinstance(said, Mapping) else said
    if not isinstance(calls, list | tuple) or not all(isinstance(c, Mapping) and "function" in c for c in calls):
        raise TypeError(f"reply must give a text, a message or tool_call(...), one or a list; it gave {_kind(said)}.")
    numbered = [{"id": f"call_{turn}_{number}", **call} for number, call in enumerate(calls)]
    return {"role": "assistant", "content": None, "tool_calls": numbered}


def _kind(said: Any) -> str:
    return "nothing" if said is None else type(said).__name__
