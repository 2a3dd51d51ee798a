"""Providers by their own wire, answering as ``builtin/arithmetic`` does: what LiteLLM sends is read as they would.

Each function takes a request's body and gives the reply's; a body that is not of the wire raises.
"""

import json
from itertools import count
from typing import Any

from support.model_endpoint import Answer, JsonObject, arithmetic


def openai(body: JsonObject) -> Answer:
    """OpenAI's chat completions, with a field of its own, which the model wants back."""
    answer = json.loads(arithmetic(body).content)
    answer["choices"][0]["message"] |= {"reasoning_content": "Let me see.", "provider_specific_fields": None}
    return _json(answer)


def groq(body: JsonObject) -> Answer:
    """Groq's, which is OpenAI's with the tier that LiteLLM reads."""
    return _json(json.loads(openai(body).content) | {"service_tier": "on_demand"})


def anthropic(body: JsonObject) -> Answer:
    """Anthropic's messages (version 2023-06-01)."""
    assert body["max_tokens"] > 0
    tools = [_openai_tool(tool["name"], tool["description"], tool["input_schema"]) for tool in body.get("tools", ())]
    messages: list[JsonObject] = [{"role": "system", "content": part["text"]} for part in body.get("system", ())]
    for message in body["messages"]:
        blocks = message["content"]
        blocks = [{"type": "text", "text": blocks}] if isinstance(blocks, str) else blocks
        messages += [_openai_message(message["role"], block) for block in blocks if block["type"] != "thinking"]
    said = _said(messages, tools)
    content = [{"type": "thinking", "thinking": "Let me see.", "signature": "sig"}] if said.get("tool_calls") else []
    content += [{"type": "text", "text": said["content"]}] if said.get("content") else []
    for call in said.get("tool_calls", ()):
        function = call["function"]
        arguments = json.loads(function["arguments"])
        content.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments})
    return _json(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": content,
            "stop_reason": "tool_use" if said.get("tool_calls") else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 10, "output_tokens": 5},
        }
    )


def ollama(body: JsonObject) -> Answer:
    """Ollama's chat API."""
    assert body["stream"] is False
    assert "format" not in body, "a model that must write JSON cannot write '#### N'"
    messages: list[JsonObject] = []
    called, answered = count(), count()  # there are no ids: results come in the order of the calls
    for message in body["messages"]:
        known: JsonObject = {"role": message["role"], "content": message.get("content")}
        if message["role"] == "tool":
            known["tool_call_id"] = f"call_{next(answered)}"
        if message.get("tool_calls"):
            known["tool_calls"] = [
                {"id": f"call_{next(called)}", "type": "function", "function": _with_text_arguments(call["function"])}
                for call in message["tool_calls"]
            ]
        messages.append(known)
    said = _said(messages, body.get("tools") or [])
    message = {"role": "assistant", "content": said.get("content") or "", "thinking": "Let me see."}
    if said.get("tool_calls"):
        message["tool_calls"] = [
            {"function": {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}}
            for call in said["tool_calls"]
        ]
    return _json(
        {
            "model": body["model"],
            "created_at": "2026-01-01T00:00:00Z",
            "message": message,
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 10,
            "eval_count": 5,
        }
    )


def _said(messages: list[JsonObject], tools: list[JsonObject]) -> JsonObject:
    said: JsonObject = json.loads(arithmetic({"messages": messages, "tools": tools}).content)["choices"][0]["message"]
    return said


def _openai_tool(name: str, description: str, parameters: JsonObject) -> JsonObject:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _openai_message(role: str, block: JsonObject) -> JsonObject:
    match block["type"]:
        case "tool_use":
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


def _json(body: Any) -> Answer:
    return Answer(json.dumps(body).encode())
