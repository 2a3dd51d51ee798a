"""What a function says to a model, and what the function gets."""

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NotRequired

import pytest
from pydantic import BaseModel, ConfigDict, Field
from support.tool_calls import TOOLS, content_of, run
from typing_extensions import TypedDict

from osmosis_ai.rollout import Toolbox


def parameters_of(function: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments, as it goes out."""
    [schema] = Toolbox(function, **options).schemas
    dumped: dict[str, Any] = schema.model_dump(exclude_none=True)["function"]["parameters"]
    return dumped


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
    def collect(seen: list[str] = [], limit: int = Field(5, ge=1), factor: Decimal = Decimal("0.5")) -> str:  # noqa: B006 - what authors write, and is tested
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
    def find(name: str = None) -> str:  # type: ignore[assignment]  # noqa: RUF013 - what authors write, and is tested
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
