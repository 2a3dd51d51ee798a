"""Tools are functions: what the model is told of them, what it may write, and what it is answered."""

import asyncio
import functools
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NotRequired

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, ConfigDict, Field
from support.tool_calls import a_context, answer_to, content_of, tool_call
from typing_extensions import TypedDict

from osmosis_ai.rollout import EXACT, RolloutContext, Toolbox, ToolExecutionError, tool
from osmosis_ai.rollout.core.tool_arguments import MAX_DIGITS
from osmosis_ai.rollout.core.watch import CURRENT_WATCH, RolloutWatch, ToolOutcome


def add(a: Annotated[Decimal, "First number"], b: Annotated[Decimal, "Second number"]) -> Decimal:
    """Add two numbers: a + b."""
    return EXACT.add(a, b)


def subtract(a: Decimal, b: Decimal) -> Decimal:
    """Subtract."""
    return EXACT.subtract(a, b)


TOOLS = Toolbox(add, subtract)


def run(name: str, arguments: Any, tools: Toolbox = TOOLS, state: Any = None) -> str:
    return asyncio.run(content_of(tools, name, arguments, state))


def run_raw(name: str, a: str, b: str) -> str:
    """As a model writes it: the operands are spliced into the JSON text untouched."""
    return run(name, f'{{"a": {a}, "b": {b}}}')


def answer(call: Any, tools: Toolbox = TOOLS) -> dict[str, str]:
    return asyncio.run(answer_to(tools, call))


def parameters_of(function: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments, as it goes out."""
    [schema] = Toolbox(function, **options).schemas
    dumped: dict[str, Any] = schema.model_dump(exclude_none=True)["function"]["parameters"]
    return dumped


# Numbers


def test_arguments_may_come_decoded() -> None:
    assert answer(tool_call("add", {"a": 0.1, "b": 10**30}))["content"] == f"1{'0' * 30}.1"


@pytest.mark.parametrize(
    ("a", "b", "result"), [('"5"', '"3"', "8"), ('" 5 "', "3", "8"), ('"+2.50"', "0.5", "3"), ('"1e2"', "1", "101")]
)
def test_a_number_sent_as_text_is_that_number(a: str, b: str, result: str) -> None:
    assert run_raw("add", a, b) == result


@pytest.mark.parametrize(
    "value", ['"five"', '""', '"1/2"', '"3, 4"', '"0x10"', '"\\ud800"', "true", "false", "null", "[5]", "{}"]
)
def test_what_is_no_number_is_refused(value: str) -> None:
    assert run_raw("add", "1", value) == "Error: argument b of add must be a number"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", '"nan"', '"sNaN"', '"-inf"', '"Infinity"'])
def test_nan_and_infinities_are_refused(value: str) -> None:
    assert run_raw("subtract", value, "1") == "Error: argument a of subtract must be a finite number"


def test_a_float_that_is_not_finite_is_refused() -> None:
    content = answer(tool_call("add", {"a": float("inf"), "b": 1}))["content"]
    assert content == "Error: argument a of add must be a finite number"


TOO_LONG = "Error: overflow: a number has more than 4,000 digits"


@pytest.mark.parametrize(
    "number",
    ["9" * (MAX_DIGITS + 1), "9" * 1_000_000, "1e999999999", "-1e4000", "1e-999999999", "1e99999999999999999999"],
    ids=["a digit too many", "a million digits", "huge", "hugely negative", "tiny", "beyond decimal itself"],
)
def test_an_absurdly_long_number_is_refused(number: str) -> None:
    assert run_raw("add", number, "1") == TOO_LONG
    assert run_raw("add", f'"{number}"', "1") == TOO_LONG


def test_a_long_integer_that_comes_decoded_is_refused() -> None:
    assert answer(tool_call("add", {"a": 10**5000, "b": 1}))["content"] == TOO_LONG


# Malformed calls


def test_arguments_encoded_twice_are_decoded() -> None:
    assert run("add", json.dumps(json.dumps({"a": 2, "b": "3"}))) == "5"


@pytest.mark.parametrize("text", ["{", "a=1", "{'a': 1}", " ", '{"a": 1,', '{"a":' * 100_000, "[" * 100_000])
def test_undecodable_arguments_are_an_error_for_the_model(text: str) -> None:
    assert run("add", text) == "Error: the arguments are not valid JSON"


@pytest.mark.parametrize("text", ["[1, 2]", "5", "true", '"text"', json.dumps(json.dumps(json.dumps({"a": 1})))])
def test_arguments_that_are_no_object_are_an_error_for_the_model(text: str) -> None:
    assert run("add", text).startswith("Error: the arguments ")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"a": 1}, "b missing"),
        ({"x": 1}, "a, b missing"),
        ({}, "a, b missing"),
        ({"a": 1, "b": 2, "c": 3}, "another argument given"),
    ],
)
def test_missing_and_extra_arguments_are_named(arguments: dict[str, Any], problem: str) -> None:
    assert run("add", arguments) == f"Error: add takes the arguments a, b: {problem}"


@pytest.mark.parametrize("arguments", [None, ""])
def test_absent_arguments_count_as_none_given(arguments: Any) -> None:
    assert answer(tool_call("add", arguments))["content"].endswith("a, b missing")


@pytest.mark.parametrize("name", ["power", "", "Add", None, 5, ["add"], {"add": 1}])
def test_an_unknown_tool_is_answered_with_the_known_ones(name: Any) -> None:
    content = answer(tool_call(name, "{}"))["content"]
    assert content == "Error: no such tool; there are add, subtract"


@pytest.mark.parametrize("call", [None, 5, "add", [], {}, {"id": None}, {"function": None}, {"function": "add"}])
def test_what_is_no_tool_call_is_answered(call: Any) -> None:
    message = answer(call)
    assert message["content"].startswith("Error: no such tool")
    assert message["tool_call_id"] == "unknown"


def test_an_answer_is_a_tool_message_with_the_id_of_its_call() -> None:
    assert answer(tool_call("add", '{"a": 1, "b": 2}', "call_7")) == {
        "role": "tool",
        "content": "3",
        "tool_call_id": "call_7",
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
tool_calls = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "function": json_values
        | st.fixed_dictionaries(
            {"name": st.sampled_from(["add", "subtract"]) | json_values},
            optional={
                "arguments": json_values
                | st.text()
                | st.fixed_dictionaries({"a": json_values, "b": json_values}).map(json.dumps)
            },
        ),
    },
)


@given(call=tool_calls | json_values)
def test_no_tool_call_raises(call: Any) -> None:
    message = answer(call)
    assert message["role"] == "tool"
    assert isinstance(message["content"], str)
    assert isinstance(message["tool_call_id"], str)


def test_absurd_nesting_is_answered_where_the_schema_lets_anything_in() -> None:
    def keep(value: dict[str, Any]) -> str:
        return "kept"

    tools = Toolbox(keep)
    assert run("keep", '{"value": {"a": ' + "[" * 50 + "]" * 50 + "}}", tools) == "kept"
    deep = run("keep", '{"value": {"a": ' + "[" * 990 + "]" * 990 + "}}", tools)
    assert deep in ("Error: the arguments of keep are nested too deeply", "Error: the arguments are not valid JSON")


def test_a_million_wrong_items_are_refused_in_linear_time() -> None:
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    started = time.monotonic()
    tools = Toolbox(total)
    assert run("total", {"numbers": [1] * 200_000 + ["x"]}, tools) == (
        "Error: argument numbers.200000 of total must be a number"
    )
    assert time.monotonic() - started < 10


def test_a_short_text_that_stands_for_many_digits_is_cheap_to_refuse() -> None:
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    started = time.monotonic()
    text = '{"numbers": [' + ",".join(["1e400"] * 50_000 + ["1e3999"] * 50_000) + "]}"
    assert run("total", text, Toolbox(total)) == (
        "Error: argument numbers.50000 of total must be a whole number without so large an exponent"
    )
    assert time.monotonic() - started < 10


# What a function says to the model


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Condition(BaseModel):
    """What a row must be."""

    column: str
    value: Decimal
    op: Literal["=", "<"] = "="


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: Annotated[str, Field(description="Of the book")]


class Where(TypedDict):
    all_of: list[Condition]
    limit: NotRequired[int]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Node(BaseModel):
    children: list["Node"]


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (Decimal, {"type": "number"}),
        (float, {"type": "number"}),
        (int, {"type": "integer"}),
        (str, {"type": "string"}),
        (bool, {"type": "boolean"}),
        (list, {"type": "array", "items": {}}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (dict, {"type": "object", "additionalProperties": True}),
        (dict[str, Decimal], {"type": "object", "additionalProperties": {"type": "number"}}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal["a"], {"type": "string", "enum": ["a"]}),
        (Colour, {"type": "string", "enum": ["red", "blue"]}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (Annotated[str, "What"], {"type": "string", "description": "What"}),
        (
            Annotated[int, Field(ge=1, le=9, description="How many")],
            {"type": "integer", "minimum": 1, "maximum": 9, "description": "How many"},
        ),
        (
            Strict,
            {
                "type": "object",
                "properties": {"title": {"type": "string", "description": "Of the book"}},
                "required": ["title"],
                "additionalProperties": False,
            },
        ),
        (
            Where,
            {
                "type": "object",
                "properties": {
                    "all_of": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "description": "What a row must be.",
                            "properties": {
                                "column": {"type": "string"},
                                "value": {"type": "number"},
                                "op": {"type": "string", "enum": ["=", "<"], "default": "="},
                            },
                            "required": ["column", "value"],
                        },
                    },
                    "limit": {"type": "integer"},
                },
                "required": ["all_of"],
            },
        ),
    ],
)
def test_a_parameter_is_shown_as_its_annotation_says(annotation: Any, schema: dict[str, Any]) -> None:
    def use(it: Any) -> None:
        """Use it."""

    use.__annotations__["it"] = annotation
    assert parameters_of(use) == {
        "type": "object",
        "properties": {"it": schema},
        "required": ["it"],
        "additionalProperties": False,
    }


def test_nothing_is_left_in_a_schema_that_model_servers_refuse() -> None:
    def adopt(pet: Annotated[Cat | Dog, Field(discriminator="kind")], spare: Cat | None = None) -> None:
        """Adopt."""

    text = json.dumps(parameters_of(adopt))
    for refused in ("$ref", "$defs", '"title"', "oneOf", "const", "discriminator", "x-decimal"):
        assert refused not in text


def test_names_that_pydantic_uses_itself_are_names_like_any_other() -> None:
    def use(schema: str, model_config: int, copy: bool, _hidden: str, json: str, self: str) -> str:
        return f"{schema} {model_config} {copy} {_hidden} {json} {self}"

    arguments = {"schema": "a", "model_config": 1, "copy": True, "_hidden": "b", "json": "c", "self": "d"}
    assert run("use", arguments, Toolbox(use)) == "a 1 True b c d"


def test_a_default_is_shown_and_is_new_for_each_call() -> None:
    def collect(seen: list[str] = [], limit: int = Field(5, ge=1), factor: Decimal = Decimal("0.5")) -> str:  # noqa: B006
        seen.append("x")
        return f"{seen} {limit} {factor}"

    shown = parameters_of(collect)
    assert shown["required"] == []
    assert shown["properties"]["seen"]["default"] == []
    assert shown["properties"]["limit"] == {"type": "integer", "minimum": 1, "default": 5}
    assert shown["properties"]["factor"] == {"type": "number", "default": 0.5}
    tools = Toolbox(collect)
    assert [run("collect", {}, tools) for _ in range(2)] == ["['x'] 5 0.5"] * 2


def test_a_default_of_none_lets_null_in() -> None:
    def find(name: str = None) -> str:  # type: ignore[assignment]  # noqa: RUF013
        return str(name)

    assert [run("find", arguments, Toolbox(find)) for arguments in ({}, {"name": None}, {"name": "x"})] == [
        "None",
        "None",
        "x",
    ]


def test_a_tool_without_parameters_or_descriptions_has_a_schema() -> None:
    def ping(host: str = "here") -> str:
        return f"pong from {host}"

    def now() -> str:
        return "noon"

    tools = Toolbox(ping, now)
    assert tools.schemas[0].function.description == "ping"
    assert tools.schemas[0].function.parameters.properties["host"].description is None
    assert run("ping", "", tools) == "pong from here"
    assert run("now", {}, tools) == "noon"
    assert run("now", {"when": "?"}, tools) == "Error: now takes no arguments: another argument given"


def test_the_list_of_schemas_is_the_callers_own() -> None:
    TOOLS.schemas.clear()
    assert len(TOOLS.schemas) == 2


# What a function gets


class Everything(TypedDict):
    where: Where
    pet: NotRequired[Cat | Dog]


def test_nested_arguments_arrive_as_their_types_with_every_digit() -> None:
    def query(where: Where, colour: Colour = Colour.RED, extra: dict[str, Any] | None = None) -> str:
        return f"{where} {colour} {extra}"

    digits = "1.123456789012345678901234567890"
    text = f'{{"where": {{"all_of": [{{"column": "a", "value": {digits}}}], "limit": "3"}}, "colour": "blue",'
    text += ' "extra": {"x": 1.5, "y": [2, 1e3]}}'
    assert run("query", text, Toolbox(query)) == (
        f"{{'all_of': [Condition(column='a', value=Decimal('{digits}'), op='=')], 'limit': 3}}"
        " Colour.BLUE {'x': 1.5, 'y': [2, 1000.0]}"
    )


def test_lists_and_objects_encoded_once_more_are_decoded() -> None:
    def query(columns: list[int], where: Where) -> str:
        return f"{columns} {where}"

    arguments = {"columns": "[1, 2]", "where": '{"all_of": []}'}
    assert run("query", arguments, Toolbox(query)) == "[1, 2] {'all_of': []}"


@pytest.mark.parametrize(
    ("annotation", "value", "received"),
    [
        (int, "7", 7),
        (int, 7.0, 7),
        (float, "1.5", 1.5),
        (bool, "true", True),
        (bool, False, False),
        (int | str, "5", "5"),
        (int | str, 5, 5),
        (str | None, None, None),
        (int | float, 1.5, 1.5),
        (float | None, "2", 2.0),
        (Literal[1, 2], "2", 2),
        (list[bool], [True, "false"], [True, False]),
        (Cat | Dog, {"kind": "dog", "name": "5"}, Dog(kind="dog", name="5")),
        (dict[str, int], {"a": "1"}, {"a": 1}),
        (list, [1, 1.5, "1"], [1, 1.5, "1"]),
    ],
)
async def test_a_value_becomes_what_the_annotation_says(annotation: Any, value: Any, received: Any) -> None:
    got = []

    def use(it: Any) -> None:
        got.append(it)

    use.__annotations__["it"] = annotation
    assert await content_of(Toolbox(use), "use", {"it": value}) == "null"
    assert got == [received]
    assert type(got[0]) is type(received)


@pytest.mark.parametrize(
    ("annotation", "value", "problem"),
    [
        (int, 1.5, "argument it of use must be a whole number"),
        (int, "five", "argument it of use must be a number"),
        (int, True, "argument it of use must be a number"),
        (float, "1e400", "argument it of use must be a number that a float can hold, below 1.8e308"),
        (str, 5, "argument it of use must be a text"),
        (bool, 1, "argument it of use must be true or false"),
        (bool, "maybe", "argument it of use must be true or false"),
        (list[int], "nothing", "argument it of use must be a list"),
        (list[int], [1, None], "argument it.1 of use must be a number"),
        (dict[str, Any], [1], "argument it of use must be an object"),
        (Literal["a", "b"], "c", 'argument it of use must be one of "a", "b"'),
        (Literal[1, 2], True, "argument it of use must be a number"),
        (Colour, "green", 'argument it of use must be one of "red", "blue"'),
        (int | None, "x", "argument it of use must be a number or null"),
        (int | str, True, "argument it of use must be a number or a text"),
        (Condition, {"column": "a"}, "argument it of use must be an object of column, value, op: value missing"),
        (Condition, {"column": "a", "value": True}, "argument it.value of use must be a number"),
        (Strict, {"title": "a", "b": 1}, "argument it of use must be an object of title: another field given"),
        (Condition | None, {"column": 5, "value": 1}, "argument it.column of use must be a text"),
        (Annotated[int, Field(le=9)], 10, "argument it of use: input should be less than or equal to 9"),
        (dict[str, Any], {"a": [float("nan")]}, "argument it.a.0 of use must be a finite number"),
    ],
)
async def test_a_value_that_does_not_fit_is_named_with_its_place(annotation: Any, value: Any, problem: str) -> None:
    def use(it: Any) -> None:
        raise AssertionError("called with what does not fit")

    use.__annotations__["it"] = annotation
    assert await content_of(Toolbox(use), "use", {"it": value}) == f"Error: {problem}"


def test_a_tool_may_be_async_and_take_text_whole_numbers_and_defaults() -> None:
    async def repeat(text: Annotated[str, "What"], times: Annotated[int, "How often"] = 2) -> dict[str, str]:
        """Repeat a text."""
        await asyncio.sleep(0)
        return {"text": text * times}

    tools = Toolbox(repeat)
    parameters = tools.schemas[0].function.parameters
    assert {name: schema.type for name, schema in parameters.properties.items()} == {
        "text": "string",
        "times": "integer",
    }
    assert parameters.required == ["text"]
    assert run("repeat", {"text": "ab"}, tools) == '{"text": "abab"}'
    assert run("repeat", {"text": "ab", "times": "3"}, tools) == '{"text": "ababab"}'
    assert run("repeat", {"text": "ab", "times": 1.5}, tools) == (
        "Error: argument times of repeat must be a whole number"
    )
    assert run("repeat", {"text": 5}, tools) == "Error: argument text of repeat must be a text"


def test_a_float_parameter_takes_a_number() -> None:
    def half(of: Annotated[float, "What"]) -> float:
        """Halve a number."""
        return of / 2

    assert run("half", {"of": "3"}, Toolbox(half)) == "1.5"


@dataclass
class Session:
    """What a rollout keeps."""

    rows: list[str]


def test_the_context_and_the_state_are_filled_in_and_not_shown() -> None:
    def remember(row: str, ctx: RolloutContext, session: Session | None) -> str:
        """Remember."""
        assert session is not None
        session.rows.append(row)
        return f"{ctx.request.rollout_id}: {session.rows}"

    tools = Toolbox(remember, state=Session)
    assert list(tools.schemas[0].function.parameters.properties) == ["row"]
    session = Session([])
    assert run("remember", {"row": "a"}, tools, session) == "rollout-1: ['a']"
    assert run("remember", {"row": "b"}, tools, session) == "rollout-1: ['a', 'b']"
    assert run("remember", {"row": "c", "session": {"rows": []}}, tools, session) == (
        "Error: remember takes the arguments row: another argument given"
    )


async def test_a_forgotten_state_is_the_agents_mistake() -> None:
    def remember(row: str, session: Session) -> None:
        """Remember."""

    with pytest.raises(ToolExecutionError, match=r"wants a Session: write answer\(ctx, tool_calls, state\)"):
        await content_of(Toolbox(remember, state=Session), "remember", {"row": "a"})


async def test_a_state_that_the_toolbox_does_not_know_is_refused_before_the_model_fills_it_in() -> None:
    def remember(row: str, session: Session) -> None:
        """Remember: a dataclass may also be an argument."""

    for tools in (Toolbox(remember), Toolbox(add, state=Shop)):
        with pytest.raises(TypeError, match=r"takes a Session .*: write Toolbox\(..., state=Session\)"):
            await tools.answer(a_context(), [], Session([]))


class Shop:
    def __init__(self, name: str) -> None:
        self.name = name

    def greet(self, who: str) -> str:
        """Greet somebody."""
        return f"{self.name} greets {who}"

    async def __call__(self, who: str) -> str:
        """Call somebody."""
        return f"{self.name} calls {who}"


def test_methods_partials_and_objects_can_be_tools() -> None:
    shop = Shop("Ada")
    greet_loudly = tool(name="shout")(functools.partial(add, b=Decimal(1)))
    tools = Toolbox(shop.greet, greet_loudly, tool(name="phone")(shop))
    assert [schema.function.name for schema in tools.schemas] == ["greet", "shout", "phone"]
    assert run("greet", {"who": "Ben"}, tools) == "Ada greets Ben"
    assert run("shout", {"a": 1}, tools) == "2"
    assert run("phone", {"who": "Ben"}, tools) == "Ada calls Ben"


def test_a_decorated_function_keeps_its_signature() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @logged
    async def double(number: int) -> int:
        """Double."""
        return 2 * number

    assert run("double", {"number": 4}, Toolbox(double)) == "8"


def test_tool_gives_a_function_options_and_leaves_it_a_function() -> None:
    @tool(name="sum", description="Adds up.")
    def total(numbers: list[int]) -> int:
        """For the people who read the code."""
        return sum(numbers)

    @tool
    def plain() -> str:
        """Say nothing."""
        return ""

    [first, second] = Toolbox(total, plain).schemas
    assert (first.function.name, first.function.description) == ("sum", "Adds up.")
    assert second.function.name == "plain"
    assert total([1, 2]) == 3


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_out_is_a_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="timeout_seconds must be a positive number of seconds"):
        tool(timeout_seconds=seconds)


# What cannot be a tool


class Opaque:
    pass


def refusals() -> list[tuple[Any, str]]:
    def takes_any_number(*rows: str) -> None: ...
    def takes_anything(**rows: str) -> None: ...
    def by_position(row: str, /) -> None: ...
    def bare(row) -> None: ...  # type: ignore[no-untyped-def]
    def opaque(row: Opaque) -> None: ...
    def anything(row: Any) -> None: ...
    def a_callable(row: Callable[[], int]) -> None: ...
    def pair(row: tuple[int, str]) -> None: ...
    def endless(row: Node) -> None: ...
    def missing(row: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    def yields() -> Any:
        yield 1

    return [
        (takes_any_number, "Parameter rows of tool takes_any_number takes any number of values: write a list, as in"),
        (takes_anything, "Parameter rows of tool takes_anything takes any arguments: write a dict, as in"),
        (by_position, "Parameter row of tool by_position is positional only, and arguments come by name: leave out"),
        (bare, "Parameter row of tool bare needs an annotation: write its type, as in `row: str`."),
        (opaque, "Parameter row of tool opaque has the type Opaque, which no model can write: use Decimal, int,"),
        (opaque, "If it is what a rollout keeps, write Toolbox(..., state=Opaque)."),
        (anything, "Parameter row of tool anything has the type Any, which says nothing to a model: use Decimal,"),
        (a_callable, "Parameter row of tool a_callable has the type Callable, which has no schema"),
        (pair, "Parameter row of tool pair has a tuple of fixed length, which many model servers refuse: use list"),
        (endless, "Parameter row of tool endless has a type that contains itself (Node): write one of a fixed depth."),
        (missing, "Parameter row of tool missing has the annotation 'Nowhere', which cannot be resolved"),
        (yields, "Tool yields yields: write a function that returns all of its result."),
        (lambda: None, "has no name that a tool can have: write a `def`, or tool(name=...)"),
        (Shop("Ada"), "has no name that a tool can have: write a `def`, or tool(name=...)"),
        (tool(name="two words")(lambda: None), "has no name that a tool can have"),
        (Shop, "cannot be a tool: write a function."),
        ("add", "cannot be a tool: write a function."),
    ]


@pytest.mark.parametrize(("function", "sentence"), refusals(), ids=[sentence[:50] for _, sentence in refusals()])
def test_what_cannot_be_a_tool_is_refused_with_what_to_write(function: Any, sentence: str) -> None:
    with pytest.raises(TypeError) as refused:
        Toolbox(function)
    assert sentence in str(refused.value)


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Two tools have the name add: give one another, with tool\(name=...\)"):
        Toolbox(add, tool(name="add")(functools.partial(subtract, b=Decimal(1))))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic takes either there")
def test_a_typed_dict_of_the_wrong_module_is_refused_with_the_right_one() -> None:
    import typing

    class Row(typing.TypedDict):
        a: int

    def use(it: Any) -> None: ...

    use.__annotations__["it"] = Row
    with pytest.raises(TypeError, match=r"before Python 3.12, import it from `typing_extensions`"):
        Toolbox(use)


# How calls run


async def test_calls_of_one_turn_run_together_and_answer_in_order() -> None:
    everybody_is_here = threading.Barrier(3, timeout=10)

    def meet(name: Annotated[str, "Who comes"]) -> str:
        """Return when three have come."""
        everybody_is_here.wait()
        return name

    ctx = a_context()
    calls = [tool_call("meet", {"name": name}, name) for name in ("Ada", "Ben", "Cleo")]
    answers = await Toolbox(meet).answer(ctx, calls)
    assert [answer["content"] for answer in answers] == ["Ada", "Ben", "Cleo"]
    assert [answer["tool_call_id"] for answer in answers] == ["Ada", "Ben", "Cleo"]


@pytest.mark.parametrize("nothing", [None, []])
async def test_no_calls_get_no_answers(nothing: Any) -> None:
    assert await TOOLS.answer(a_context(), nothing) == []


async def test_at_most_max_concurrency_calls_run_at_once() -> None:
    running, most = 0, 0

    async def count() -> None:
        """Count."""
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    calls = [tool_call("count", "{}", str(number)) for number in range(9)]
    assert len(await Toolbox(count, max_concurrency=2).answer(a_context(), calls)) == 9
    assert most == 2
    with pytest.raises(ValueError, match="max_concurrency must be at least 1, got 0"):
        Toolbox(count, max_concurrency=0)


async def test_a_time_out_names_the_tool_and_its_arguments_and_holds_up_nobody() -> None:
    released = threading.Event()

    @tool(timeout_seconds=0.05)
    def hang(query: str, limit: Decimal = Decimal(1)) -> None:
        """Hang."""
        released.wait(30)

    @tool(timeout_seconds=0.05)
    async def sleep(text: str) -> None:
        """Sleep."""
        await asyncio.sleep(30)

    calls = [
        tool_call("hang", '{"query": "SELECT 1", "limit": 1e3999}'),
        tool_call("sleep", {"text": "x" * 10_000}),
        tool_call("add", {"a": 1, "b": 2}),
    ]
    started = time.monotonic()
    try:
        first, second, third = await Toolbox(hang, sleep, add).answer(a_context(), calls)
    finally:
        released.set()
    assert time.monotonic() - started < 10
    assert first["content"] == (
        'Error: hang took longer than 0.05 seconds with the arguments {"query": "SELECT 1", "limit": 1e3999}'
    )
    assert second["content"].startswith('Error: sleep took longer than 0.05 seconds with the arguments {"text": "xxx')
    assert second["content"].endswith("...")
    assert len(second["content"]) < 700
    assert third["content"] == "3"


async def test_what_a_tool_tells_the_model_is_a_message() -> None:
    def look_up(key: str) -> str:
        """Look up."""
        raise ToolExecutionError(f"there is no {key}")

    assert await content_of(Toolbox(look_up), "look_up", {"key": "x"}) == "Error: there is no x"


async def test_a_fault_of_the_tool_itself_is_no_message_for_the_model() -> None:
    def look_up() -> str:
        """Look something up."""
        raise ConnectionError("database is down")

    with pytest.raises(ToolExecutionError, match="look_up failed: database is down") as raised:
        await content_of(Toolbox(look_up), "look_up", {})
    assert (raised.value.tool_name, raised.value.tool_call_id) == ("look_up", "call_1")
    assert isinstance(raised.value.__cause__, ConnectionError)


async def test_a_time_out_of_the_tools_own_is_a_fault() -> None:
    @tool(timeout_seconds=30)
    async def look_up() -> str:
        """Look something up."""
        raise TimeoutError("database is slow")

    with pytest.raises(ToolExecutionError, match="look_up failed: database is slow"):
        await content_of(Toolbox(look_up), "look_up", {})


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()])
async def test_a_tool_can_neither_end_the_process_nor_cancel_the_rollout(error: BaseException) -> None:
    async def leave() -> None:
        """Leave."""
        raise error

    def leave_thread() -> None:
        """Leave."""
        raise error

    for tools in (Toolbox(leave), Toolbox(tool(name="leave")(leave_thread))):
        with pytest.raises(ToolExecutionError) as raised:
            await content_of(tools, "leave", {})
        assert raised.value.tool_name == "leave"


async def test_a_fault_ends_the_calls_beside_it() -> None:
    ended = asyncio.Event()

    async def wait() -> None:
        """Wait."""
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    async def fail() -> None:
        """Fail."""
        raise ValueError("broken")

    with pytest.raises(ToolExecutionError, match="fail failed: broken"):
        await Toolbox(wait, fail).answer(a_context(), [tool_call("wait", "{}"), tool_call("fail", "{}")])
    assert ended.is_set()


async def test_calls_are_counted_and_timed() -> None:
    async def nap() -> None:
        """Nap."""
        await asyncio.sleep(0.02)

    ctx = a_context()
    await Toolbox(nap).answer(ctx, [tool_call("nap", "{}"), tool_call("nope", "{}"), None])
    metrics = ctx.metrics_so_far()
    assert metrics is not None
    assert metrics.num_tool_calls == 3
    assert metrics.tool_latency_ms >= 20


class Watch(RolloutWatch):
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, ToolOutcome]] = []

    def tool_begins(self, name: str, call_id: str) -> Any:
        return name, call_id

    def tool_ends(self, tool: Any, outcome: ToolOutcome) -> None:
        self.seen.append((*tool, outcome))


async def test_a_watch_is_told_how_each_call_ended() -> None:
    @tool(timeout_seconds=0.01)
    async def hang() -> None:
        """Hang."""
        await asyncio.sleep(30)

    watch = Watch()
    CURRENT_WATCH.set(watch)
    calls = [tool_call("add", {"a": 1, "b": 2}, "a"), tool_call("add", "{", "b"), tool_call("hang", "{}", "c"), None]
    await Toolbox(add, hang).answer(a_context(), calls)
    assert sorted(watch.seen) == [
        ("", "unknown", ToolOutcome.ERROR),
        ("add", "a", ToolOutcome.OK),
        ("add", "b", ToolOutcome.ERROR),
        ("hang", "c", ToolOutcome.TIMEOUT),
    ]


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("as it is", "as it is"),
        (Decimal("1.500"), "1.5"),
        (Decimal("1E+3"), "1000"),
        (Decimal("-0.0"), "0"),
        ({"a": [1, None]}, '{"a": [1, null]}'),
        (None, "null"),
        (Condition(column="a", value=Decimal(1)), '{"column": "a", "value": "1", "op": "="}'),
    ],
)
async def test_a_result_is_written_as_text(result: Any, text: str) -> None:
    def give() -> Any:
        """Give."""
        return result

    assert await content_of(Toolbox(give), "give", {}) == text


async def test_a_result_with_too_many_digits_is_an_overflow() -> None:
    def give() -> Decimal:
        """Give."""
        return Decimal("1E+5000")

    assert await content_of(Toolbox(give), "give", {}) == TOO_LONG
