"""A stand-in for a model: a script that looks up the words of the question, reads what it finds, and answers.

`osmosis trainer --policy examples.library.policy:KeywordPolicy` plays the trainer with it. It takes words for meaning,
so it is right about "red ... island" and half wrong about "does a fog horn sound today": a reward between 0 and 1.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from examples.library.tools import words_of
from osmosis_ai.rollout import CompletionsResult, RolloutMetrics, get_message_content

STOP_WORDS = words_of(
    "a an and are at do does for in is it of on or open stand stands the to which who lighthouse lighthouses"
)
CHARACTERS_PER_TOKEN = 4


class KeywordPolicy:
    """Searches each word of the question in one turn, reads all notes found in the next, then names those that fit."""

    def set_tools(self, tools: Iterable[Mapping[str, Any]]) -> None:
        """The tools are known; a script has no use for their description."""

    def get_metrics(self) -> RolloutMetrics:
        """Nothing is counted."""
        return RolloutMetrics()

    async def chat_completions(self, messages: list[dict[str, Any]], **kwargs: Any) -> CompletionsResult:
        """The next message; `kwargs`, the sampling settings, have no effect."""
        message = next_message(messages)
        prompt_tokens = len(json.dumps(messages)) // CHARACTERS_PER_TOKEN
        completion_tokens = len(json.dumps(message)) // CHARACTERS_PER_TOKEN
        return CompletionsResult(
            message=message,
            token_ids=[],
            logprobs=[],
            usage={"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
            finish_reason="tool_calls" if "tool_calls" in message else "stop",
        )


def next_message(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """What the policy says after `messages`."""
    question = next(get_message_content(message) for message in messages if message.get("role") == "user")
    keywords = sorted(words_of(question) - STOP_WORDS)
    answers = [message for message in messages if message.get("role") == "tool"]
    if not answers:
        return calling([("search", {"words": word, "limit": 10}) for word in keywords], "search")
    names = {hit["id"]: hit["name"] for answer in answers[: len(keywords)] for hit in json.loads(answer["content"])}
    if len(answers) == len(keywords) and names:
        return calling([("read", {"id": note_id}) for note_id in sorted(names)], "read")
    texts = dict(zip(sorted(names), (answer["content"] for answer in answers[len(keywords) :]), strict=True))
    known = set().union(*map(words_of, texts.values())) & set(keywords)
    fitting = [names[note_id] for note_id, text in texts.items() if known <= words_of(text)]
    return {"role": "assistant", "content": f"I read {len(texts)} notes.\nAnswer: {'; '.join(fitting)}"}


def calling(calls: list[tuple[str, dict[str, Any]]], prefix: str) -> dict[str, Any]:
    """A message with parallel tool calls."""
    tool_calls = [
        {"id": f"{prefix}_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for number, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": None, "tool_calls": tool_calls}
