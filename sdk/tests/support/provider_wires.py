"""Providers by their own wire, with any model behind: what LiteLLM sends is read as they would.

A wire reads a request into OpenAI's form, and writes a model's message in its own. What is not of the wire, and a turn
of the model's own that has lost what it had thought, is refused as a bad request: Anthropic does so by its signature.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from support.model_endpoint import Answer, JsonObject, arithmetic, refuse

THOUGHT = "Let me see."
SIGNATURE = "sig"
STATE = {"a": [1, None]}

Model = Callable[[list[JsonObject], list[JsonObject]], JsonObject]
"""From messages and tools to a message, with its ``finish_reason`` where that is none of the usual ones."""


def adds_up(messages: list[JsonObject], tools: list[JsonObject]) -> JsonObject:
    """The scripted policy's message."""
    said: JsonObject = json.loads(arithmetic({"messages": messages, "tools": tools}).content)["choices"][0]["message"]
    return {"content": said["content"], "tool_calls": said.get("tool_calls")}


@dataclass(frozen=True)
class Wire:
    """How one provider is spoken to."""

    read: Callable[[JsonObject], tuple[list[JsonObject], list[JsonObject]]]
    """Messages and tools out of a body; an ``AssertionError`` or ``LookupError`` says what is wrong with it."""
    write: Callable[[JsonObject, JsonObject], JsonObject]
    """The body of a reply, out of the request's and a message."""

    def answer(self, body: JsonObject, model: Model = adds_up) -> Answer:
        """What ``model`` says."""
        try:
            messages, tools = self.read(body)
        except (AssertionError, LookupError) as error:
            return refuse(400, f"{type(error).__name__}: {error}")
        return Answer(json.dumps(self.write(body, model(messages, tools))).encode())


def _read_openai(body: JsonObject) -> tuple[list[JsonObject], list[JsonObject]]:
    for message in body["messages"]:
        if message["role"] == "assistant":
            assert message["reasoning_content"] == THOUGHT, "a turn has lost what it had thought"
            assert message["x_state"] == STATE, "a turn has lost a field that nobody else knows"
    return body["messages"], body.get("tools") or []


def _write_openai(body: JsonObject, message: JsonObject) -> JsonObject:
    finish_reason = message.pop("finish_reason", "tool_calls" if message.get("tool_calls") else "stop")
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "reasoning_content": THOUGHT, "x_state": STATE, **message},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


def _read_anthropic(body: JsonObject) -> tuple[list[JsonObject], list[JsonObject]]:
    assert body["max_tokens"] > 0
    tools = [_openai_tool(tool["name"], tool["description"], tool["input_schema"]) for tool in body.get("tools", ())]
    messages: list[JsonObject] = [{"role": "system", "content": part["text"]} for part in body.get("system", ())]
    for message in body["messages"]:
        blocks = message["content"]
        blocks = [{"type": "text", "text": blocks}] if isinstance(blocks, str) else blocks
        if message["role"] == "assistant":
            thoughts = [block for block in blocks if block["type"] == "thinking"]
            assert thoughts == [_THINKING], "a turn has lost what it had thought, or its signature"
        messages += [_openai_message(message["role"], block) for block in blocks if block["type"] != "thinking"]
    return messages, tools


_THINKING = {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE}
_STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "stop": "end_turn"}


def _write_anthropic(body: JsonObject, message: JsonObject) -> JsonObject:
    content = message.get("content") or []
    blocks = [_THINKING, *([{"type": "text", "text": content}] if isinstance(content, str) else content)]
    for call in message.get("tool_calls") or ():
        function = call["function"]
        blocks.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": _decoded(function)})
    finish_reason = message.get("finish_reason") or ("tool_calls" if message.get("tool_calls") else "stop")
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": blocks,
        "stop_reason": _STOP_REASONS.get(finish_reason, finish_reason),
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }


def _read_ollama(body: JsonObject) -> tuple[list[JsonObject], list[JsonObject]]:
    assert body["stream"] is False
    assert "format" not in body, "a model that must write JSON cannot write '#### N'"
    messages: list[JsonObject] = []
    called, answered = count(), count()  # there are no ids: results come in the order of the calls
    for message in body["messages"]:
        known: JsonObject = {"role": message["role"], "content": message.get("content")}
        if message["role"] == "tool":
            known["tool_call_id"] = f"call_{next(answered)}"
        if message["role"] == "assistant":
            assert message["thinking"] == THOUGHT, "a turn has lost what it had thought"
        if message.get("tool_calls"):
            known["tool_calls"] = [
                {"id": f"call_{next(called)}", "type": "function", "function": _with_text_arguments(call["function"])}
                for call in message["tool_calls"]
            ]
        messages.append(known)
    return messages, body.get("tools") or []


def _write_ollama(body: JsonObject, message: JsonObject) -> JsonObject:
    said = {"role": "assistant", "content": message.get("content") or "", "thinking": THOUGHT}
    if message.get("tool_calls"):
        said["tool_calls"] = [
            {"function": {"name": call["function"]["name"], "arguments": _decoded(call["function"])}}
            for call in message["tool_calls"]
        ]
    return {
        "model": body["model"],
        "created_at": "2026-01-01T00:00:00Z",
        "message": said,
        "done": True,
        "done_reason": message.get("finish_reason") or "stop",
        "prompt_eval_count": 10,
        "eval_count": 5,
    }


OPENAI = Wire(_read_openai, _write_openai)
"""OpenAI's chat completions, with a field of the model's own, which it wants back."""
GROQ = OPENAI
"""Groq's is OpenAI's."""
ANTHROPIC = Wire(_read_anthropic, _write_anthropic)
"""Anthropic's messages (version 2023-06-01)."""
OLLAMA = Wire(_read_ollama, _write_ollama)
"""Ollama's chat API."""


def _openai_tool(name: str, description: str, parameters: JsonObject) -> JsonObject:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _openai_message(role: str, block: JsonObject) -> JsonObject:
    match block["type"]:
        case "tool_use":
            assert isinstance(block["input"], dict), "Anthropic refuses an input that is no object"
            function = {"name": block["name"], "arguments": json.dumps(block["input"])}
            call = {"id": block["id"], "type": "function", "function": function}
            return {"role": role, "content": None, "tool_calls": [call]}
        case "tool_result":
            content = block["content"]
            text = content if isinstance(content, str) else content[0]["text"]
            return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": text}
        case _:
            return {"role": role, "content": block["text"]}


def _with_text_arguments(function: JsonObject) -> JsonObject:
    assert isinstance(function["arguments"], dict), "Ollama refuses arguments as text"
    return function | {"arguments": json.dumps(function["arguments"])}


def _decoded(function: JsonObject) -> Any:
    """Arguments as an object; what is no JSON stays what it is."""
    try:
        return json.loads(function["arguments"])
    except (TypeError, ValueError):
        return function["arguments"]
