"""What a rollout can be found and grouped by: its metadata, its prompt as a digest, the weights that answered, and the
texts of its tools. All of it is foreign, and each is bounded.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from pydantic_core import to_json

from osmosis_ai.rollout.core.text import cut

Scalar = str | float | bool

MAX_KEYS = 16
MAX_KEY_CHARACTERS = 60
MAX_VALUE_CHARACTERS = 120
MAX_TEXT_CHARACTERS = 2000
"""Of the texts of a rollout's tools together: 50,000 of them fit into memory."""
MAX_PIECE_CHARACTERS = 400
MAX_WEIGHTS = 8
MAX_ANSWER_CHARACTERS = 80
_LARGEST_EXACT = 1 << 53
"""A page's numbers are doubles: a larger integer, such as an id of 19 digits, is told as text, or would be another."""
_LARGEST_BITS = 256


def scalars_of(metadata: object) -> dict[str, Scalar]:
    """The scalar values of a request's metadata; long ones are cut, and those beyond ``MAX_KEYS`` left out."""
    if not isinstance(metadata, dict):
        return {}
    found: dict[str, Scalar] = {}
    for key, value in metadata.items():
        if len(found) >= MAX_KEYS:
            break
        if isinstance(value, str):
            found[cut(key, MAX_KEY_CHARACTERS)] = cut(value, MAX_VALUE_CHARACTERS)
        elif isinstance(value, bool) or (isinstance(value, int | float) and abs(value) <= _LARGEST_EXACT):
            found[cut(key, MAX_KEY_CHARACTERS)] = value
        elif isinstance(value, int) and value.bit_length() <= _LARGEST_BITS:
            found[cut(key, MAX_KEY_CHARACTERS)] = str(value)
    return found


def digest_of(messages: object) -> str:
    """The same for the same messages, and for no others; empty for what is no text of UTF-8."""
    try:
        return blake2b(to_json(messages, inf_nan_mode="constants"), digest_size=6).hexdigest()
    except ValueError:
        return ""


def question_of(messages: list[Any], metadata: object) -> str:
    """A digest of what the dataset asked: the messages but the system's, which is the agent's, and the ground truth."""
    said = [one for one in messages if not (isinstance(one, dict) and one.get("role") in ("system", "developer"))]
    truth = metadata.get("ground_truth") if isinstance(metadata, dict) else None
    return digest_of([said, truth])


def weights_of(known: list[str], event: Mapping[str, Any]) -> list[str]:
    """``known`` with the weight versions that a reply names, each once, in their order."""
    versions = event.get("weight_versions")
    for version in versions if isinstance(versions, list) else ():
        name = str(version)[:MAX_KEY_CHARACTERS] if isinstance(version, int | str) else ""
        if name and name not in known and len(known) < MAX_WEIGHTS:
            known = [*known, name]
    return known


def with_tools(text: str, messages: object) -> str:
    """``text`` with what tools were called with, and what they said, in lower case, a piece a line."""
    if len(text) >= MAX_TEXT_CHARACTERS or not isinstance(messages, list):
        return text
    pieces = [text] if text else []
    for message in messages:
        if not isinstance(message, dict):
            continue
        if message.get("role") == "tool" and isinstance(content := message.get("content"), str):
            pieces.append(content[:MAX_PIECE_CHARACTERS])
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                pieces.append(f"{function.get('name')} {function.get('arguments')}"[:MAX_PIECE_CHARACTERS])
    return "\n".join(pieces)[:MAX_TEXT_CHARACTERS].lower()


def answer_of(text: str) -> str:
    """The last line of what a model said last, where its answer stands; of a long one the end."""
    line = text.rstrip().rpartition("\n")[2].lstrip()
    return line if len(line) <= MAX_ANSWER_CHARACTERS else f"...{line[3 - MAX_ANSWER_CHARACTERS :]}"


def last_answers(messages: object) -> list[Any]:
    """The tools' messages that a conversation ends with: no later call has sent them."""
    messages = messages if isinstance(messages, list) else []
    end = len(messages)
    while end and isinstance(messages[end - 1], dict) and messages[end - 1].get("role") == "tool":
        end -= 1
    return messages[end:]
