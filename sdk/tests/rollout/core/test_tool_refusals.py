"""What cannot be a tool is refused when the toolbox is made, in a sentence that says what to write."""

import functools
import sys
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from support.tool_calls import add, subtract

from osmosis_ai.rollout import Toolbox, tool


class Colour(Enum):
    RED = "red"


class Condition(BaseModel):
    value: Decimal = Decimal(1)


class Node(BaseModel):
    children: list["Node"]


class Opaque:
    pass


class Greeter:
    def __call__(self) -> str:
        raise AssertionError("not to be called")


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
    def missing(row: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821 - what is tested

    def blob(row: bytes | None = None) -> None: ...
    def blobs(row: Annotated[list[bytes], "Many"]) -> None: ...
    def wave(row: complex) -> None: ...

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
        (blob, "Parameter row of tool blob has the type bytes, which no model can write: use Decimal, int,"),
        (blobs, "Parameter row of tool blobs has the type bytes, which no model can write: use Decimal, int,"),
        (wave, "Parameter row of tool wave has the type complex, which no model can write: use Decimal, int,"),
        (yields, "Tool yields yields: write a function that returns all of its result."),
        (lambda: None, "has no name that a tool can have: write a `def`, or tool(name=...)"),
        (Greeter(), "has no name that a tool can have: write a `def`, or tool(name=...)"),
        (tool(name="two words")(lambda: None), "letters, digits, '_' and '-', not 'two words'."),
        (Greeter, "cannot be a tool: write a function, as in Toolbox(add, subtract)."),
        ("add", "cannot be a tool: write a function, as in Toolbox(add, subtract)."),
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


DEFAULTS: list[tuple[Any, Any, str]] = [
    (int, "5", "int and the default '5'"),
    (int, True, "int and the default True"),
    (int | str, 1.5, "int | str and the default 1.5"),
    (Decimal, 0, "Decimal and the default 0"),
    (bool, 0, "bool and the default 0"),
    (list[str], (), "list[str] and the default ()"),
    (dict[str, int], {"a": "1"}, "dict[str, int] and the default {'a': '1'}"),
    (Colour, "red", "Colour and the default 'red'"),
    (Literal["a", "b"], "c", "Literal['a', 'b'] and the default 'c'"),
    (Condition, {}, "Condition and the default {}"),
    (Annotated[int, Field(default="5")], ..., "int and the default '5'"),
]


def with_default(annotation: Any, default: Any) -> Any:
    def use(it: Any) -> None: ...

    use.__annotations__["it"] = annotation
    if default is not ...:
        use.__defaults__ = (default,)
    return use


@pytest.mark.parametrize(("annotation", "default", "problem"), DEFAULTS)
def test_a_default_of_another_type_is_refused(annotation: Any, default: Any, problem: str) -> None:
    with pytest.raises(TypeError) as refused:
        Toolbox(with_default(annotation, default))
    assert str(refused.value) == (
        f"Parameter it of tool use has the type {problem}, which is none: write a default of that type, or a type that"
        " has both, as in `int | str`."
    )


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (float, 1),
        (Decimal, Decimal(1)),
        (int, None),
        (list[str], []),
        (Colour, Colour.RED),
        (Annotated[int, Field(ge=1)], 0),
        (set[int], {1}),
    ],
)
def test_a_default_of_the_type_is_taken_and_so_is_one_out_of_bounds(annotation: Any, default: Any) -> None:
    assert not Toolbox(with_default(annotation, default)).schemas[0].function.parameters.required
