"""What besides a wrong answer may have cost a run its reward: limits and tool calls, as its conversation shows them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from osmosis_ai.rollout.core.chat_watch import ChatWatch
from osmosis_ai.rollout.core.messages import get_message_text, parse_tool_calls
from osmosis_ai.rollout.core.schemas import MessageDict

__all__ = ["FinishReasonWatch", "zero_lines", "zero_reason"]

TRUNCATED = "truncated at max_tokens (a larger --max-tokens lets the model end)"
OUT_OF_CONTEXT = "stopped at the rollout's limit of tokens"
OUT_OF_TURNS = "stopped at max_turns (a larger --max-turns lets the agent go on)"
EMPTY = "ended with an empty reply"
CALLS_AS_TEXT = "tool calls came as text (the server's tool parser is off)"
_THOUGHT_ALONE = ", all of it is reasoning (cut short, or the server's reasoning parser took the answer)"
# Where a message has what its content lacks, by the names that servers give it.
_ELSEWHERE = {
    "refusal": ", its refusal says why",
    "reasoning_content": _THOUGHT_ALONE,
    "reasoning": _THOUGHT_ALONE,
    "thinking": _THOUGHT_ALONE,
    "thinking_blocks": _THOUGHT_ALONE,
}

_STOPPED_BY = {"length": TRUNCATED, "max_tokens": OUT_OF_CONTEXT, "max_turns": OUT_OF_TURNS}
# How models write calls when nobody parses them: Hermes and Qwen, Mistral, Llama, DeepSeek.
_CALL_MARKS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<function=", "<|tool_call", "<\uff5ctool\u2581call")


class FinishReasonWatch(ChatWatch):
    """Remembers the finish reason of the model's last reply."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last: str | None = None

    def chat_ends(self, chat: Any, reply: Any) -> None:
        """Note the reply."""
        given = getattr(reply, "finish_reason", None)
        self.last = given if isinstance(given, str) else None


def zero_reason(
    finish_reasons: Iterable[str | None], messages: Sequence[MessageDict], tool_names: Sequence[str]
) -> str | None:
    """What else than a wrong answer may have cost the run its reward, if anything shows; see ``zero_lines``.

    ``finish_reasons`` are the agent's and the model's; ``tool_names`` are the tools that were offered.
    """
    for finish_reason in finish_reasons:
        if finish_reason in _STOPPED_BY:
            return _STOPPED_BY[finish_reason]
    replies = [message for message in messages if message.get("role") == "assistant"]
    if replies and not parse_tool_calls(replies[-1]) and not get_message_text(replies[-1]).strip():
        return EMPTY + next((hint for name, hint in _ELSEWHERE.items() if replies[-1].get(name)), "")
    if not tool_names or any(parse_tool_calls(message) for message in replies):
        return None
    if any(_holds_a_call(get_message_text(message), tool_names) for message in replies):
        return CALLS_AS_TEXT
    return f"called no tool although {len(tool_names)} {'was' if len(tool_names) == 1 else 'were'} offered"


def zero_lines(reasons: Mapping[str, int], zeros: int) -> list[str]:
    """``20 of 20 truncated at max_tokens``: a line a reason, the most frequent first."""
    return [f"{count} of {zeros}: {reason}" for reason, count in Counter(reasons).most_common()]


def _holds_a_call(content: str, tool_names: Sequence[str]) -> bool:
    if any(mark in content for mark in _CALL_MARKS):
        return True
    named = re.search(r'"name"\s*:\s*"([^"]*)"', content)
    return bool(named and named[1] in tool_names and re.search(r'"(arguments|parameters)"\s*:', content))
