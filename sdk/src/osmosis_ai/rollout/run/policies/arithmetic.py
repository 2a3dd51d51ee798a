"""A policy for calculator agents that is a script, not a language model: same messages in, same message out.

It reads the arithmetic in the last user message, asks the offered tools for one step after the other (steps that do
not depend on each other as parallel calls of one turn), uses what the tools answered as operands of the next step, and
ends with ``#### N``. It never calculates itself. What it cannot do it says in plain words, without ``####``.

Everything it needs is in the messages: it keeps no state between calls but its tools and its counters.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import MessageDict, OpenAIFunctionToolSchema, tool_as_json
from osmosis_ai.rollout.core.text import cut, shortened
from osmosis_ai.rollout.run.errors import ProviderFailure, SystemicProviderError
from osmosis_ai.rollout.run.policies.arithmetic_tools import (
    ArithmeticTool,
    find_tools,
    has_name_of_arithmetic,
    read_number,
)
from osmosis_ai.rollout.run.policies.expression import Operand, Operator, Step, StepResult, find_expression
from osmosis_ai.rollout.trainer.counted_calls import CountedCalls

__all__ = ["ArithmeticPolicy"]

MAX_QUESTION_CHARACTERS = 100_000
MAX_STEPS = 1_000
MAX_QUOTED_CHARACTERS = 200


class ArithmeticPolicy(CountedCalls):
    """``builtin/arithmetic``: meets ``LLMClientProtocol`` without a model, a key or a network.

    ``token_ids`` and ``logprobs`` of its results are empty. Token counts are an approximation: one token for every
    four characters of a message's JSON text, rounded up. Sampling parameters are accepted and have no effect.
    """

    display_name: ClassVar[str] = "builtin/arithmetic"

    def __init__(self) -> None:
        super().__init__()
        self._tools: Mapping[Operator, ArithmeticTool] = {}
        self._unknown: tuple[str, ...] = ()

    def set_tools(self, tools: Iterable[OpenAIFunctionToolSchema | Mapping[str, Any]]) -> None:
        """Offer ``tools`` (schema objects or their JSON) instead of those offered so far."""
        offered = [tool_as_json(tool) for tool in tools]
        self._tools, self._unknown = _known_and_unknown(json.dumps(offered, default=str))

    def clear_tools(self) -> None:
        """Offer no tools."""
        self._tools, self._unknown = {}, ()

    async def chat_completions(self, messages: list[MessageDict], **kwargs: Any) -> CompletionsResult:
        """The next assistant message; finish reason ``tool_calls`` or ``stop``. ``kwargs`` are ignored.

        Raises:
            SystemicProviderError: none of the tools that are offered is a calculator's.
        """
        if self._unknown:
            names = shortened(", ".join(self._unknown))
            raise SystemicProviderError(
                f"{self.display_name} is for calculators, and knows none of the tools {names}:"
                " write a script for them, such as policy.py of osmosis init, and give --policy policy:reply.",
                failure=ProviderFailure.POLICY,
            )
        started_seconds = time.perf_counter()
        return self._counted_result(messages, next_message(messages, self._tools), started_seconds)


@lru_cache(maxsize=64)
def _known_and_unknown(offered_json: str) -> tuple[Mapping[Operator, ArithmeticTool], tuple[str, ...]]:
    """The calculator's tools, and the names of all where none is one. The rollouts of an agent offer the same."""
    offered = json.loads(offered_json)
    tools = find_tools(offered)
    is_known = bool(tools) or any(map(has_name_of_arithmetic, offered))
    return tools, () if is_known else tuple(map(_function_name, offered))


def next_message(messages: Sequence[MessageDict], tools: Mapping[Operator, ArithmeticTool]) -> MessageDict:
    """What the policy says after ``messages``, whose tool calls since the last user message are its own."""
    try:
        return _Conversation(messages).next_message(tools)
    except _CannotGoOnError as reason:
        return {"role": "assistant", "content": str(reason)}


class _CannotGoOnError(Exception):
    """Says in one sentence why there will be no answer; the text goes to the conversation."""


class _Conversation:
    def __init__(self, messages: Sequence[MessageDict]) -> None:
        self._question_position = _position_of_question(messages)
        self._steps = _steps_of(messages[self._question_position])
        self._since_question = messages[self._question_position + 1 :]

    def next_message(self, tools: Mapping[Operator, ArithmeticTool]) -> MessageDict:
        steps = self._steps
        missing = dict.fromkeys(step.operator.value for step in steps if step.operator not in tools)
        if missing:
            raise _CannotGoOnError(f"I cannot work this out: no tool is offered to {' or to '.join(missing)}.")
        results = list(self._results())
        if len(results) == len(steps):
            return {"role": "assistant", "content": f"The answer is {results[-1]}.\n#### {results[-1]}"}
        level = steps[len(results)].level
        calls = [
            self._call(number, tools[step.operator], _number(step.left, results), _number(step.right, results))
            for number, step in enumerate(steps)
            if number >= len(results) and step.level == level
        ]
        return {"role": "assistant", "content": None, "tool_calls": calls}

    def _results(self) -> Iterator[str]:
        """What the tools answered, step by step: steps are called in order, so the n-th call is the n-th step's."""
        answers = {
            str(message.get("tool_call_id")): message
            for message in self._since_question
            if message.get("role") == "tool"
        }
        calls = [call for message in self._since_question for call in _tool_calls(message)]
        for call in calls[: len(self._steps)]:
            name, answer = _function_name(call), answers.get(str(call.get("id")))
            if answer is None:
                raise _CannotGoOnError(f"I cannot go on: the call of {name} was not answered.")
            number = read_number(_text_of(answer))
            if number is None:
                raise _CannotGoOnError(f"I cannot go on: {name} answered {_quoted(_text_of(answer))}.")
            yield number

    def _call(self, step_number: int, tool: ArithmeticTool, left: str, right: str) -> dict[str, Any]:
        return {
            "id": f"call_{self._question_position}_{step_number}",
            "type": "function",
            "function": {"name": tool.name, "arguments": tool.arguments(left, right)},
        }


def _position_of_question(messages: Sequence[MessageDict]) -> int:
    for position in reversed(range(len(messages))):
        if messages[position].get("role") == "user":
            return position
    raise _CannotGoOnError("There is no question: the conversation has no user message.")


def _steps_of(question: MessageDict) -> tuple[Step, ...]:
    text = _text_of(question)
    if len(text) > MAX_QUESTION_CHARACTERS:
        raise _CannotGoOnError(
            f"The question is {len(text)} characters long, and I read at most {MAX_QUESTION_CHARACTERS}."
        )
    steps = find_expression(text)
    if not steps:
        raise _CannotGoOnError("I found no arithmetic in the question.")
    if len(steps) > MAX_STEPS:
        raise _CannotGoOnError(f"The arithmetic in the question takes {len(steps)} steps, and I stop at {MAX_STEPS}.")
    return steps


def _number(operand: Operand, results: Sequence[str]) -> str:
    return results[operand.index] if isinstance(operand, StepResult) else operand


def _tool_calls(message: MessageDict) -> list[dict[str, Any]]:
    calls = message.get("tool_calls") if message.get("role") == "assistant" else None
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _function_name(call: Mapping[str, Any]) -> str:
    match call:
        case {"function": {"name": str(name)}}:
            return name
        case _:
            return "a tool"


def _text_of(message: MessageDict) -> str:
    match message.get("content"):
        case str(text):
            return text
        case list(parts):
            return "\n".join(
                part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)
            )
        case _:
            return ""


def _quoted(text: str) -> str:
    return f'"{cut(text.replace("#", "").strip(), MAX_QUOTED_CHARACTERS)}"'
