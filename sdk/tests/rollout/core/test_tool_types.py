"""Types whose schema and whose value need care: unions, defaults that are made, Enums, descriptions within a type."""

import math
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Required
from uuid import uuid4

import pytest
from pydantic import BaseModel, ConfigDict, Field
from support.tool_calls import run
from typing_extensions import TypedDict

from osmosis_ai.rollout import Toolbox, ToolExecutionError, tool


class Whole(BaseModel):
    x: int


class Text(BaseModel):
    x: str


class Cat(BaseModel):
    kind: Literal["cat"]
    n: int


class Dog(BaseModel):
    kind: Literal["dog"]
    n: str


class Colour(Enum):
    RED = "red"


class Level(Enum):
    LOW = Decimal("1.5")


class Day(Enum):
    FIRST = date(2026, 1, 1)


class Price(BaseModel):
    amount: Decimal = Decimal("0.10")
    most: Decimal | None = Decimal("1.50")
    bound: float = math.inf


class Exact(BaseModel):
    model_config = ConfigDict(strict=True)

    colour: Colour
    day: date
    names: set[str]


EXACT = Exact(colour=Colour.RED, day=date(2026, 1, 2), names={"a"})


class Place(TypedDict, total=False):
    city: Required[Annotated[str, "The city"]]
    zone: Annotated[int, "Of the city"]


class Spot(BaseModel):
    city: Annotated[str, "The city"]
    place: Annotated[Place, "Where"]
    zone: Annotated[int, "Not shown", Field(description="Of the city")]


def got_by(annotation: Any, arguments: str) -> Any:
    """What a function with the one parameter ``value`` gets, or what the model is told."""
    received: list[Any] = []

    def note(value: Any) -> str:
        received.append(value)
        return "noted"

    note.__annotations__["value"] = annotation
    told = run("note", arguments, Toolbox(note))
    return received[0] if received else told


def shown_of(annotation: Any, **defaults: Any) -> Any:
    def note(value: Any) -> None: ...

    note.__annotations__["value"] = annotation
    note.__defaults__ = (defaults["default"],) if defaults else None
    [schema] = Toolbox(note).schemas
    return schema.model_dump(exclude_none=True)["function"]["parameters"]["properties"]["value"]


@pytest.mark.parametrize(
    ("annotation", "written", "received"),
    [
        (float | int, "5", 5),
        (float | int, "9007199254740993", 9007199254740993),
        (float | int, "5.5", 5.5),
        (float | int, "5.0", 5.0),
        (float | int, '"5"', 5.0),
        (int | float, "5", 5),
        (int | float, "5.5", 5.5),
        (float | None, "5", 5.0),
        (str | float, "5", 5.0),
        (float | Decimal, "0.1000000000000000000001", Decimal("0.1000000000000000000001")),
        (list[int] | list[str], '["5", "6"]', ["5", "6"]),
        (list[str] | list[int], "[5, 6]", [5, 6]),
        (list[float] | list[int], "[1, 2]", [1, 2]),
        (dict[str, int] | dict[str, str], '{"a": "5"}', {"a": "5"}),
        (Whole | Text, '{"x": "5"}', Text(x="5")),
        (Text | Whole, '{"x": 5}', Whole(x=5)),
        (Whole | None, '{"x": "5"}', Whole(x=5)),
        (list[Whole | Text], '[{"x": "5"}, {"x": 5}]', [Text(x="5"), Whole(x=5)]),
        (Exact, '{"colour": "red", "day": "2026-01-02", "names": ["a"]}', EXACT),
    ],
    ids=str,
)
def test_a_value_is_of_the_choice_that_it_is_written_as(annotation: Any, written: str, received: Any) -> None:
    value = got_by(annotation, f'{{"value": {written}}}')
    assert value == received
    assert type(value) is type(received)


@pytest.mark.parametrize(
    ("annotation", "written", "told"),
    [
        (
            Annotated[Cat | Dog, Field(discriminator="kind")],
            '{"kind": "dog", "n": 5}',
            "value.n of note must be a text",
        ),
        (Cat | Dog, '{"kind": "dog", "n": 5}', "value.n of note must be a text"),
        (list[Cat | Dog], '[{"kind": "dog", "n": 5}]', "value.0.n of note must be a text"),
        (Cat | Dog, '{"kind": "cow", "n": 5}', 'value.kind of note must be one of "cat" or one of "dog"'),
        (int | list[int], '["x"]', "value.0 of note must be a number"),
    ],
    ids=str,
)
def test_the_choice_that_was_meant_says_what_is_wrong(annotation: Any, written: str, told: str) -> None:
    assert got_by(annotation, f'{{"value": {written}}}') == f"Error: argument {told}"


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (Level, "Level, an Enum of Decimal"),
        (list[Day], "Day, an Enum of date"),
        (Literal[Colour.RED], "Literal[Colour.RED]"),
        (Literal[b"x"], "Literal[b'x']"),
    ],
    ids=str,
)
def test_a_value_that_no_model_can_write_is_refused(annotation: Any, kind: str) -> None:
    with pytest.raises(TypeError) as refused:
        shown_of(annotation)
    assert f"Parameter value of tool note has the type {kind}, which no model can write" in str(refused.value)


@pytest.mark.parametrize(
    ("annotation", "defaults", "shown"),
    [
        (float, {"default": math.inf}, {"type": "number"}),
        (str, {"default": "\ud800"}, {"type": "string"}),
        (Annotated[str, Field(default_factory=lambda: uuid4().hex)], {}, {"type": "string"}),
        (
            Price,
            {},
            {
                "type": "object",
                "properties": {
                    "amount": {"type": "number", "default": 0.1},
                    "most": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": 1.5},
                    "bound": {"type": "number"},
                },
            },
        ),
        (
            Spot,
            {},
            {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city"},
                    "place": {
                        "type": "object",
                        "description": "Where",
                        "properties": {
                            "city": {"type": "string", "description": "The city"},
                            "zone": {"type": "integer", "description": "Of the city"},
                        },
                        "required": ["city"],
                    },
                    "zone": {"type": "integer", "description": "Of the city"},
                },
                "required": ["city", "place", "zone"],
            },
        ),
        (
            list[Annotated[int, "A year"]] | None,
            {},
            {
                "anyOf": [
                    {"type": "array", "items": {"type": "integer", "description": "A year"}},
                    {"type": "null"},
                ]
            },
        ),
        (
            dict[str, Annotated[int, "A year"]],
            {},
            {"type": "object", "additionalProperties": {"type": "integer", "description": "A year"}},
        ),
    ],
    ids=str,
)
def test_what_is_shown_of_defaults_and_descriptions(annotation: Any, defaults: Any, shown: Any) -> None:
    assert shown_of(annotation, **defaults) == shown


def test_a_default_that_is_made_is_made_for_each_call() -> None:
    def note(key: Annotated[str, Field(default_factory=lambda: uuid4().hex)]) -> str:
        return key

    tools = Toolbox(note)
    assert run("note", "{}", tools) != run("note", "{}", tools)


def test_a_default_cannot_be_made_of_other_arguments() -> None:
    def note(key: Annotated[str, Field(default_factory=lambda data: str(data))]) -> str:
        return key

    with pytest.raises(TypeError, match="Parameter key of tool note has a default_factory that takes an argument"):
        Toolbox(note)


@pytest.mark.parametrize("told", ["in the message", "in a name"])
def test_a_character_that_cannot_be_sent_ends_no_rollout(told: str) -> None:
    def find(options: dict[str, int]) -> str:
        if told == "in the message":
            raise ToolExecutionError("no file \ud800")
        return "found"

    written = '{"options": {"a": 1}}' if told == "in the message" else r'{"options": {"\ud800": "x"}}'
    content = run("find", written, Toolbox(find))
    assert content.startswith("Error: ")
    assert content.encode()


class Shop:
    def search(self, name: str) -> str:
        """Search."""
        return name


def test_one_function_can_be_two_tools_and_so_can_methods() -> None:
    def add(a: int, b: int = 1, *, c: int = 0) -> int:
        """Add."""
        return a + b + c

    plus = tool(name="plus", timeout_seconds=5)(add)
    first, second = Shop(), Shop()
    tools = Toolbox(add, plus, first.search, tool(name="search_b")(second.search))
    assert [schema.function.name for schema in tools.schemas] == ["add", "plus", "search", "search_b"]
    assert (add(1), plus(1), run("plus", '{"a": 3, "c": 2}', tools), run("search_b", '{"name": "x"}', tools)) == (
        2,
        2,
        "6",
        "x",
    )


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: tool("add"), "'add' cannot be a tool: write a function"),  # type: ignore[call-overload]
        (lambda: tool(name=5), "The name of a tool must be a text, got 5."),  # type: ignore[call-overload]
        (lambda: tool(description=b"x"), "The description of a tool must be a text, got b'x'."),  # type: ignore[call-overload]
        (lambda: tool(Shop), "<class '.*Shop'> cannot be a tool: write a function"),
    ],
)
def test_an_option_of_another_type_is_refused(make: Callable[[], Any], problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        make()


def test_a_description_that_cannot_be_sent_is_refused() -> None:
    def note() -> None: ...

    with pytest.raises(TypeError, match="Tool note has a text that UTF-8 cannot carry"):
        Toolbox(tool(description="\ud800")(note))
