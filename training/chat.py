"""The chat template as tokens: messages in, token ids out, and back from sampled text to a message.

The format is ChatML, which SmolLM2 and many others were trained on. Each message is encoded on its own, between special
tokens, so a conversation that grows only ever appends tokens, and text that spells a special token stays text.
Tool calls are written ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``; a tool's result is a message of its
own role.
"""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.sameness import shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]

TOOL_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
TOOLS_HEADING = "Tools:"


class ToolPrompt(Enum):
    """How the tools of the rollout's 202 are shown to the model, after the system prompt."""

    NONE = "none"
    """Not at all: worked examples or training must have shown them."""
    SIGNATURES = "signatures"
    """``add(a, b): Add two numbers``, one a line."""
    JSON = "json"
    """Their JSON schemas, one a line."""


class ChatFormat:
    """ChatML over one tokenizer."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", tools: ToolPrompt = ToolPrompt.NONE) -> None:
        self._tokenizer = tokenizer
        self._tools = tools
        self._start = int(tokenizer.convert_tokens_to_ids("<|im_start|>"))
        self.end = int(tokenizer.convert_tokens_to_ids("<|im_end|>"))
        """The token that ends a message; a model that samples it has ended its turn."""
        self._newline = self.encoded("\n")

    def prompt(self, messages: Iterable[Message], tools: Iterable[Mapping[str, Any]] = ()) -> list[int]:
        """The whole conversation, and the opening of the assistant's next message."""
        shown = self._with_tools([dict(message) for message in messages], list(tools))
        return [token for message in shown for token in self._message(message)] + self._opening()

    def continuation(self, messages: Iterable[Message], turn_was_ended: bool) -> list[int]:
        """What follows a sampled turn: its end, unless it was sampled too, ``messages``, and the next opening."""
        ids = [] if turn_was_ended else [self.end]
        ids += self._newline
        for message in messages:
            ids += self._message(message)
        return ids + self._opening()

    def text(self, tokens: list[int]) -> str:
        """Sampled tokens as text, without the end token."""
        kept = tokens[:-1] if tokens and tokens[-1] == self.end else tokens
        return str(self._tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def pieces(self, tokens: list[int]) -> list[str]:
        """Each token as text, for display."""
        return [
            str(self._tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
            for token in tokens
        ]

    def encoded(self, text: str) -> list[int]:
        """Text as tokens, none of them special."""
        encoded = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return [int(token) for token in encoded["input_ids"]]

    def _message(self, message: Message) -> list[int]:
        text = f"{message.get('role', 'user')}\n{rendered(message)}"
        return [self._start, *self.encoded(text), self.end, *self._newline]

    def _opening(self) -> list[int]:
        return [self._start, *self.encoded("assistant\n")]

    def _with_tools(self, messages: list[dict[str, Any]], tools: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
        if self._tools is ToolPrompt.NONE or not tools:
            return messages
        describe = json.dumps if self._tools is ToolPrompt.JSON else _signature
        described = "\n".join([TOOLS_HEADING, *map(describe, tools)])
        if messages and messages[0].get("role") == "system":
            first = messages[0] | {"content": f"{content_of(messages[0])}\n{described}"}
            return [first, *messages[1:]]
        return [{"role": "system", "content": described}, *messages]


def _signature(tool: Mapping[str, Any]) -> str:
    function = tool.get("function") or {}
    names = ", ".join((function.get("parameters") or {}).get("properties") or {})
    return f"{function.get('name')}({names}): {function.get('description', '')}"


def content_of(message: Message) -> str:
    """The text of a message; content given in parts is joined."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return ""


def rendered(message: Message) -> str:
    """A message in the words of the model: its text, then its tool calls."""
    calls = [_rendered_call(call) for call in message.get("tool_calls") or []]
    return "\n".join(filter(None, [content_of(message), *calls]))


def _rendered_call(call: Mapping[str, Any]) -> str:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        with suppress(ValueError):
            arguments = json.loads(arguments)
    return f"<tool_call>{json.dumps({'name': function.get('name'), 'arguments': arguments})}</tool_call>"


def parsed(text: str, call_id_prefix: str) -> dict[str, Any]:
    """The OpenAI message that sampled ``text`` means. One malformed tool call makes all of it plain content.

    Args:
        call_id_prefix: ids of the calls are this with ``_0``, ``_1``, ... appended.
    """
    calls = []
    for number, block in enumerate(TOOL_CALL.findall(text)):
        call = _parsed_call(block)
        if call is None:
            return {"role": "assistant", "content": text}
        calls.append({"id": f"{call_id_prefix}_{number}", "type": "function", "function": call})
    if not calls:
        return {"role": "assistant", "content": text}
    return {"role": "assistant", "content": TOOL_CALL.sub("", text).strip() or None, "tool_calls": calls}


def _parsed_call(block: str) -> dict[str, str] | None:
    try:
        call = json.loads(block, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    if not isinstance(call.get("arguments"), dict):
        return None
    return {"name": call["name"], "arguments": json.dumps(call["arguments"])}


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def is_same(one: Message, other: Message) -> bool:
    """Whether two messages show a model the same, however they are spelled (``docs/protocol.md``, 4.1)."""
    return shown(one) == shown(other)
