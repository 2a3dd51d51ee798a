import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Any

import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout.core.llm_client import LLMClientProtocol
from osmosis_ai.rollout.core.schemas import MessageDict, OpenAIFunctionToolSchema
from osmosis_ai.rollout.run.policies import BUILTIN_POLICIES, ArithmeticPolicy

OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
}
NUMBER = {"type": "number"}
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": name,
            "parameters": {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"]},
        },
    }
    for name in OPERATIONS
]

FIRST_LABEL = 1_000_000


class LabelTools:
    """Answers each call with a label instead of the result, and takes labels back as operands.

    Only a policy that feeds tool results into later calls, and never calculates itself, comes out right.
    """

    def __init__(self) -> None:
        self.value_of: dict[str, Fraction] = {}
        self.division_by_zero = False
        self._labels = count(FIRST_LABEL)

    def answer(self, call: dict[str, Any]) -> str:
        arguments = json.loads(call["function"]["arguments"], parse_int=self._value, parse_float=self._value)
        try:
            value = OPERATIONS[call["function"]["name"]](arguments["a"], arguments["b"])
        except ZeroDivisionError:
            self.division_by_zero = True
            return "Error: division by zero"
        label = str(next(self._labels))
        self.value_of[label] = value
        return label

    def _value(self, text: str) -> Fraction:
        return self.value_of[text] if text in self.value_of else Fraction(text)


def offered(*names: str) -> ArithmeticPolicy:
    policy = ArithmeticPolicy()
    policy.set_tools([tool for tool in TOOLS if tool["function"]["name"] in names])
    return policy


async def converse(
    policy: ArithmeticPolicy, question: str, answer: Callable[[dict[str, Any]], str]
) -> tuple[str, list[list[dict[str, Any]]]]:
    """The final words and the tool calls of each turn."""
    messages: list[MessageDict] = [{"role": "user", "content": question}]
    turns: list[list[dict[str, Any]]] = []
    while True:
        reply = await policy.chat_completions(messages)
        messages.append(reply.message)
        if not reply.has_tool_calls:
            assert reply.finish_reason == "stop"
            return str(reply.content), turns
        assert reply.finish_reason == "tool_calls"
        turns.append(reply.tool_calls)
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": answer(call)} for call in reply.tool_calls]


@dataclass(frozen=True)
class Tree:
    """A random expression: how it is written, what it is worth and how many rounds of tool calls it takes."""

    text: str
    precedence: int
    value: Fraction | None
    rounds: int


def leaf(number: Any) -> Tree:
    return Tree(f"{number:,}", 3, Fraction(str(number)), 0)


def in_parentheses(tree: Tree) -> Tree:
    return Tree(f"({tree.text})", 3, tree.value, tree.rounds)


def negated(tree: Tree) -> Tree:
    operand = tree if tree.precedence == 3 else in_parentheses(tree)
    value = None if tree.value is None else -tree.value
    if operand.text.startswith("-"):
        operand = in_parentheses(operand)
    return Tree(f"-{operand.text}", 3, value, tree.rounds + (tree.rounds > 0))


SYMBOLS = {
    "add": ("+", " + ", " plus "),
    "subtract": ("-", " - ", " minus ", " \N{MINUS SIGN} "),
    "multiply": ("*", " * ", " \N{MULTIPLICATION SIGN} ", " times ", " multiplied by "),
    "divide": ("/", " / ", " \N{DIVISION SIGN} ", " divided by "),
}


@st.composite
def combined(draw: st.DrawFn, trees: st.SearchStrategy[Tree]) -> Tree:
    name = draw(st.sampled_from(sorted(SYMBOLS)))
    precedence = 1 if name in ("add", "subtract") else 2
    left, right = draw(trees), draw(trees)
    if left.precedence < precedence or draw(st.booleans()):
        left = in_parentheses(left)
    if right.precedence <= precedence or draw(st.booleans()):
        right = in_parentheses(right)
    value = None
    if left.value is not None and right.value is not None and not (name == "divide" and right.value == 0):
        value = OPERATIONS[name](left.value, right.value)
    text = f"{left.text}{draw(st.sampled_from(SYMBOLS[name]))}{right.text}"
    return Tree(text, precedence, value, max(left.rounds, right.rounds) + 1)


def grown(trees: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    return combined(trees) | combined(trees).map(negated)


LEAVES = (
    st.integers(0, FIRST_LABEL - 1) | st.decimals(0, FIRST_LABEL - 1, places=2, allow_nan=False, allow_infinity=False)
).map(leaf)
TREES = st.recursive(LEAVES | LEAVES.map(negated), grown, max_leaves=12).filter(lambda tree: tree.rounds > 0)


@given(tree=TREES, around=st.sampled_from(["{}", "What is {}?", "Please compute {}.", "So: {} = ?", "**{}**"]))
async def test_tool_results_combine_to_the_value_of_any_expression(tree: Tree, around: str) -> None:
    tools = LabelTools()
    words, turns = await converse(offered(*OPERATIONS), around.format(tree.text), tools.answer)
    if tree.value is None:
        assert tools.division_by_zero
        assert "####" not in words
        return
    assert tools.value_of[words.rpartition("#### ")[2]] == tree.value
    assert len(turns) == tree.rounds, "what can be computed at the same time is computed in one turn"
    ids = [call["id"] for turn in turns for call in turn]
    assert len(set(ids)) == len(ids)


def exactly(call: dict[str, Any]) -> str:
    arguments = json.loads(call["function"]["arguments"])
    value = OPERATIONS[call["function"]["name"]](Fraction(str(arguments["a"])), Fraction(str(arguments["b"])))
    return str(int(value)) if value.denominator == 1 else str(float(value))


async def test_independent_parts_are_parallel_calls_and_the_answer_ends_the_conversation() -> None:
    words, turns = await converse(offered(*OPERATIONS), "What is (1 + 2) * (10 - 4)?", exactly)
    assert [[call["function"]["name"] for call in turn] for turn in turns] == [["add", "subtract"], ["multiply"]]
    assert turns[1][0]["function"]["arguments"] == '{"a": 3, "b": 6}'
    assert words == "The answer is 18.\n#### 18"


async def test_the_same_messages_give_the_same_reply() -> None:
    messages = [{"role": "user", "content": "1 + 2 * 3"}]
    first, second = [await offered(*OPERATIONS).chat_completions(messages) for _ in range(2)]
    assert first == second


async def test_a_later_question_of_the_conversation_is_answered_with_new_ids() -> None:
    policy = offered(*OPERATIONS)
    messages: list[MessageDict] = [{"role": "user", "content": "1 + 2"}]
    first = await policy.chat_completions(messages)
    messages += [
        first.message,
        {"role": "tool", "tool_call_id": first.tool_calls[0]["id"], "content": "3"},
        {"role": "assistant", "content": "#### 3"},
        {"role": "user", "content": [{"type": "text", "text": "And 4 * 5?"}]},
    ]
    (call,) = (await policy.chat_completions(messages)).tool_calls
    assert call["function"] == {"name": "multiply", "arguments": '{"a": 4, "b": 5}'}
    assert call["id"] != first.tool_calls[0]["id"]


async def test_results_count_by_position_where_the_agent_renamed_the_ids() -> None:
    messages: list[MessageDict] = [
        {"role": "user", "content": "(1 + 2) * 3"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "renamed", "function": {"name": "add"}}]},
        {"role": "tool", "tool_call_id": "renamed", "content": "3"},
    ]
    (call,) = (await offered(*OPERATIONS).chat_completions(messages)).tool_calls
    assert call["function"] == {"name": "multiply", "arguments": '{"a": 3, "b": 3}'}


def tool_answer(content: Any) -> list[MessageDict]:
    call = {"id": "c", "type": "function", "function": {"name": "divide", "arguments": "{}"}}
    return [
        {"role": "user", "content": "1 / 0 + 2"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": content},
    ]


def user(content: Any) -> list[MessageDict]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no user message"),
        (user("How are you?"), "no arithmetic"),
        (user(None), "no arithmetic"),
        (user("1 + " * 1_001 + "1"), "1001 steps"),
        (user("1 + 1" + " " * 100_000), "100005 characters"),
        (tool_answer("Error: division by zero"), 'divide answered "Error: division by zero"'),
        (tool_answer("#### 7 or #### 8"), 'divide answered "7 or  8"'),
        (tool_answer("x" * 10_000), "divide answered"),
        (tool_answer(None), "divide answered"),
        (tool_answer("1")[:2], "divide was not answered"),
    ],
)
async def test_what_it_cannot_do_it_says_without_an_answer(messages: list[MessageDict], reason: str) -> None:
    reply = await offered(*OPERATIONS).chat_completions(messages)
    assert reason in str(reply.content)
    assert "####" not in str(reply.content)
    assert len(str(reply.content)) < 500
    assert not reply.has_tool_calls


async def test_it_names_the_tools_that_are_missing_before_it_calls_any() -> None:
    reply = await offered("add", "multiply").chat_completions(user("1 + 2 - 3 / 4"))
    assert "no tool is offered to divide or to subtract" in str(reply.content)


async def test_tools_can_be_schema_objects_and_be_taken_away() -> None:
    policy = ArithmeticPolicy()
    policy.set_tools([OpenAIFunctionToolSchema.model_validate(tool) for tool in TOOLS])
    assert (await policy.chat_completions(user("1 + 2"))).has_tool_calls
    policy.clear_tools()
    assert not (await policy.chat_completions(user("1 + 2"))).has_tool_calls


async def test_it_is_a_client_that_counts_its_calls_and_tokens() -> None:
    policy = offered(*OPERATIONS)
    assert isinstance(policy, LLMClientProtocol)
    assert BUILTIN_POLICIES["builtin/arithmetic"] is ArithmeticPolicy
    reply = await policy.chat_completions(user("1 + 2"), temperature=0.7, seed=1, unknown=True)
    metrics = policy.get_metrics()
    assert metrics.num_llm_calls == 1
    assert metrics.llm_latency_ms > 0
    assert metrics.prompt_tokens == reply.usage["prompt_tokens"] == 9
    assert metrics.response_tokens == reply.usage["completion_tokens"] > 0
    assert (reply.token_ids, reply.logprobs) == ([], [])
    policy.reset_metrics()
    assert policy.get_metrics().num_llm_calls == 0


def json_values() -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
        max_leaves=5,
    )


def messages_of_any_shape() -> Iterator[st.SearchStrategy[MessageDict]]:
    content = json_values() | st.just("1 + 2 * 3") | st.just("4")
    yield st.fixed_dictionaries({"role": st.sampled_from(["user", "tool", "assistant"]), "content": content})
    yield st.fixed_dictionaries(
        {"role": st.just("assistant"), "tool_calls": st.lists(json_values() | st.just({"id": "c"})) | json_values()}
    )
    yield st.fixed_dictionaries({"role": st.just("tool"), "tool_call_id": json_values(), "content": content})


@given(st.lists(st.one_of(*messages_of_any_shape()), max_size=6))
async def test_messages_of_any_shape_get_a_reply(messages: list[MessageDict]) -> None:
    reply = await offered(*OPERATIONS).chat_completions([*user("1 + 2 * 3"), *messages])
    assert reply.message["role"] == "assistant"
