"""What is said in a rollout: the init, the model's replies, and the conversation that must come back.

Every rollout has a number and adds with it, so that no two are alike and a mixed-up conversation is seen.
"""

import json
from typing import Any

from pydantic_core import from_json

CALLBACK_KEY = "bench-callback-key"

_NUMBER = 7_777_777
"""Stands for the rollout's number in the templates."""
_FILLER = "The quick brown fox jumps over the lazy dog while the trainer waits for its tokens. "
_PROMPT_BYTES = 600
_MAX_TOKENS_TOTAL = 100_000_000
_REPLY_BYTES = 200
"""Of a reply's text, unless told otherwise."""


class Script:
    """A conversation of ``turns`` calls to the model, of which all but the last call the tool.

    Args:
        turns: 1 or more.
        server_url: of the trainer.
        name: begins every rollout's id.
        reply_bytes: of text in each reply of the model.
    """

    def __init__(self, turns: int, server_url: str, name: str, reply_bytes: int = _REPLY_BYTES) -> None:
        self.turns = turns
        self._name = name
        prompt = [
            {"role": "system", "content": _filled("You are a calculator.", _PROMPT_BYTES)},
            {
                "role": "user",
                "content": f"What is {_NUMBER} and the numbers that follow? End with #### and the number.",
            },
        ]
        replies = [_reply(turn, turn < turns, reply_bytes) for turn in range(1, turns + 1)]
        conversation: list[dict[str, Any]] = list(prompt)
        for turn, reply in enumerate(replies, start=1):
            conversation.append(reply)
            if turn < turns:
                # The sum is not written here: the template would need the rollout's number plus the turn.
                conversation.append({"role": "tool", "tool_call_id": _call_id(turn)})
        init = {
            "rollout_id": f"{name}-{_NUMBER}",
            "server_url": server_url,
            "api_key": CALLBACK_KEY,
            "messages": prompt,
            "completion_params": {"temperature": 1.0, "top_p": 0.95, "max_tokens": 512, "logprobs": True},
            "max_turns": turns,
            "max_tokens_total": _MAX_TOKENS_TOTAL,
            "metadata": {"ground_truth": str(_NUMBER)},
        }
        self._init = _Template(init)
        self._replies = [_Template(_completion(reply, turn)) for turn, reply in enumerate(replies, start=1)]
        self._conversation = _Template(conversation)
        self._tool_results = [(len(prompt) + 2 * turn - 1, turn) for turn in range(1, turns)]

    def rollout_id(self, number: int) -> bytes:
        """The id as it is on the wire."""
        return f"{self._name}-{number}".encode()

    def init(self, number: int) -> bytes:
        """The body of an init."""
        return self._init.fill(number)

    def reply(self, number: int, turn: int) -> bytes:
        """What the model answers at ``turn``, from 1."""
        return self._replies[turn - 1].fill(number)

    def proof(self, number: int, turn: int) -> bytes:
        """What a request must contain that follows the reply of ``turn``."""
        return b"call_%d_%d" % (number, turn)

    def conversation(self, number: int) -> list[dict[str, Any]]:
        """The messages that a correct agent ends with."""
        messages: list[dict[str, Any]] = from_json(self._conversation.fill(number))
        for place, turn in self._tool_results:
            messages[place]["content"] = str(number + turn)
        return messages


class _Template:
    """JSON with the rollout's number left open."""

    def __init__(self, value: Any) -> None:
        text = json.dumps(value, separators=(",", ":")).encode().replace(b"%", b"%%")
        self._places = text.count(b"%d" % _NUMBER)
        self._text = text.replace(b"%d" % _NUMBER, b"%d")

    def fill(self, number: int) -> bytes:
        return self._text % ((number,) * self._places)


def _filled(text: str, length_bytes: int) -> str:
    return (text + " " + _FILLER * (length_bytes // len(_FILLER) + 1))[: max(len(text), length_bytes)]


def _call_id(turn: int) -> str:
    return f"call_{_NUMBER}_{turn}"


def _reply(turn: int, calls_tool: bool, reply_bytes: int) -> dict[str, Any]:
    if not calls_tool:
        return {"role": "assistant", "content": _filled("All is added.", reply_bytes) + f" #### {_NUMBER}"}
    arguments = json.dumps({"a": _NUMBER, "b": turn})
    call = {"id": _call_id(turn), "type": "function", "function": {"name": "add", "arguments": arguments}}
    return {"role": "assistant", "content": _filled(f"Step {turn}: add.", reply_bytes), "tool_calls": [call]}


def _completion(message: dict[str, Any], turn: int) -> dict[str, Any]:
    usage = {"prompt_tokens": 180 * turn, "completion_tokens": 60, "total_tokens": 180 * turn + 60}
    reason = "tool_calls" if "tool_calls" in message else "stop"
    return {
        "id": f"completion-{_NUMBER}-{turn}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "default",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": usage,
    }
