"""What every contender does in a rollout: the same prompt, the same tool, the same loop. Imports nothing heavy."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Chat = Callable[[list[Message]], Awaitable[Message]]

ADD_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers: a + b.",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "number", "description": "First number"},
                "b": {"type": "number", "description": "Second number"},
            },
            "required": ["a", "b"],
        },
    },
}


def add(tool_call: Message) -> Message:
    """Answer a call of the tool with a tool message."""
    arguments = json.loads(tool_call["function"]["arguments"])
    return {"role": "tool", "content": str(arguments["a"] + arguments["b"]), "tool_call_id": tool_call["id"]}


async def converse(messages: list[Message], max_turns: int, chat: Chat) -> list[Message]:
    """Let the model call the tool until it answers without a call; give the whole conversation."""
    messages = list(messages)
    for _ in range(max_turns):
        message = await chat(messages)
        messages.append(message)
        tool_calls = message.get("tool_calls")
        if not tool_calls:
            break
        messages.extend(add(tool_call) for tool_call in tool_calls)
    return messages
