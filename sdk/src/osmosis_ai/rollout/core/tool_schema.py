"""What a function's signature says to a model, and to the validation of what the model sends back.

Both come from pydantic, parameter by parameter (``tool_types``), so that no parameter's name can collide with anything.
"""

import copy
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from types import SimpleNamespace
from typing import Annotated, Any, Optional

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from osmosis_ai.rollout.core.text import cut
from osmosis_ai.rollout.core.tool_arguments import DECIMAL, UnfitError, fit, plain
from osmosis_ai.rollout.core.tool_types import adapter_and_schema, bare, bare_annotated, is_json

_MAX_PROBLEM_CHARACTERS = 500
_MAX_DEFAULT_CHARACTERS = 100
# pydantic's names of what is wrong with a type, beside those that end in `_type`.
_TYPE_PROBLEMS = {"is_instance_of", "literal_error", "enum", "none_required", "int_from_float"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter that the model fills in."""

    name: str
    schema: dict[str, Any]
    """With the marks that ``fit`` needs; ``schema_of`` is without."""
    adapter: TypeAdapter[Any]
    required: bool
    default: Any = None
    default_factory: Callable[[], Any] | None = None

    def new_default(self) -> Any:
        """What a call gets that leaves it out: its own, as what one call adds to a list is not for the next to find."""
        return copy.deepcopy(self.default) if self.default_factory is None else self.default_factory()

    def read(self, value: Any) -> Any:
        """A decoded value as the function wants it.

        Raises:
            UnfitError: it cannot be; ``path`` begins with its name.
            decimal.Inexact: a number has more than ``MAX_DIGITS`` digits.
        """
        fitted = fit(value, self.schema, (self.name,))
        try:
            # `fit` has been strict, as the schema says; a strict model refuses the text of a date or an Enum in Python.
            return self.adapter.validate_python(fitted, strict=False)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
            text = problem["msg"].removeprefix("Value error, ")[:_MAX_PROBLEM_CHARACTERS]
            raise UnfitError("", (self.name, *problem["loc"]), f"{text[:1].lower()}{text[1:]}") from None


def read_signature(
    function: Callable[..., Any], tool: str, given: tuple[type, ...]
) -> tuple[dict[str, Parameter], dict[str, type]]:
    """The parameters of a function that is to be the tool ``tool``, and the types of those that are filled in.

    Args:
        given: the types of what is filled in, and not shown to the model.

    Raises:
        TypeError: a parameter cannot be one of a tool; the sentence names both and says what to write.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise TypeError(f"Tool {tool} has no signature that can be read: write a function that calls it.") from None
    bound = function.keywords if isinstance(function, functools.partial) else {}
    shown: dict[str, Parameter] = {}
    filled_in: dict[str, type] = {}
    for parameter in parameters:
        if parameter.name in bound:
            continue
        where = f"Parameter {parameter.name} of tool {tool}"
        _check_kind(parameter, where)
        annotation = _annotation(function, parameter, where)
        kind = next((kind for kind in given if bare(annotation) is kind), None)
        if kind is not None:
            filled_in[parameter.name] = kind
        else:
            shown[parameter.name] = _parameter(parameter, annotation, where)
    return shown, filled_in


def schema_of(parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """The JSON Schema of the arguments, as the model is given it."""
    return {
        "type": "object",
        "properties": {name: _without_marks(parameter.schema) for name, parameter in parameters.items()},
        "required": [name for name, parameter in parameters.items() if parameter.required],
        "additionalProperties": False,
    }


def called_by(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function or method that runs when ``function``, which may be a ``partial`` or an object, is called."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


def _check_kind(parameter: inspect.Parameter, where: str) -> None:
    if parameter.kind is parameter.VAR_POSITIONAL:
        raise TypeError(f"{where} takes any number of values: write a list, as in `{parameter.name}: list[str]`.")
    if parameter.kind is parameter.VAR_KEYWORD:
        raise TypeError(f"{where} takes any arguments: write a dict, as in `{parameter.name}: dict[str, str]`.")
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise TypeError(f"{where} is positional only, and arguments come by name: leave out the `/`.")
    if parameter.annotation is parameter.empty:
        raise TypeError(f"{where} needs an annotation: write its type, as in `{parameter.name}: str`.")


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter, where: str) -> Any:
    """The parameter's annotation, resolved where it is text."""
    holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    scope = getattr(inspect.unwrap(called_by(function)), "__globals__", {})
    try:
        annotation = typing.get_type_hints(holder, globalns=scope, include_extras=True)[parameter.name]
    except Exception as error:
        raise TypeError(
            f"{where} has the annotation {parameter.annotation!r}, which cannot be resolved ({error}):"
            " define the type at the top of the module."
        ) from error
    if parameter.default is None and type(None) not in typing.get_args(bare_annotated(annotation)):
        return Optional[annotation]  # noqa: UP045 - the annotation may be anything
    return annotation


def _parameter(parameter: inspect.Parameter, annotation: Any, where: str) -> Parameter:
    default = parameter.default
    if isinstance(default, FieldInfo):
        annotation = Annotated[annotation, default]
    notes = annotation.__metadata__ if typing.get_origin(annotation) is Annotated else ()
    factory = None
    if default is parameter.empty or isinstance(default, FieldInfo):
        default, factory = _default_of_fields([note for note in notes if isinstance(note, FieldInfo)], where)
    adapter, schema = adapter_and_schema(annotation, where)
    text = next((note for note in notes if isinstance(note, str)), None)
    if text is not None:
        schema = {**schema, "description": text}
    required = default is PydanticUndefined
    if not required:
        _check_default(default, annotation, adapter, where)
    schema.pop("default", None)
    if not required and default is not None and factory is None:
        with suppress(ValueError):  # it cannot be shown, and need not
            shown = plain(default) if isinstance(default, Decimal) else to_jsonable_python(default)
            if is_json(shown):
                schema["default"] = shown
    return Parameter(parameter.name, schema, adapter, required, None if required else default, factory)


def _default_of_fields(fields: list[FieldInfo], where: str) -> tuple[Any, Callable[[], Any] | None]:
    """The default, or one of its factory and the factory; ``PydanticUndefined`` where there is none."""
    for field in fields:
        if field.default_factory_takes_validated_data:
            raise TypeError(f"{where} has a default_factory that takes an argument: write one that takes none.")
        default = field.get_default(call_default_factory=True)
        if default is not PydanticUndefined:
            return default, typing.cast("Callable[[], Any] | None", field.default_factory)
    return PydanticUndefined, None


def _check_default(default: Any, annotation: Any, adapter: TypeAdapter[Any], where: str) -> None:
    """Refuse a default of another type: the function would get what no model can give it."""
    try:
        # pydantic takes a dict for a model, strict or not.
        fits = not isinstance(adapter.validate_python(default, strict=True), BaseModel) or isinstance(
            default, BaseModel
        )
    except ValidationError as error:
        # A default out of bounds may be meant: 0 for "no limit", say.
        fits = not all(_is_of_type(problem["type"]) for problem in error.errors(include_url=False, include_input=False))
    if not fits:
        plain_type = bare(annotation)
        is_class = isinstance(plain_type, type) and not typing.get_origin(plain_type)
        kind = plain_type.__name__ if is_class else str(plain_type)
        raise TypeError(
            f"{where} has the type {kind.removeprefix('typing.')} and the default"
            f" {cut(repr(default), _MAX_DEFAULT_CHARACTERS)}, which is none: write a default of that type, or a type"
            " that has both, as in `int | str`."
        )


def _is_of_type(problem: str) -> bool:
    return problem.endswith("_type") or problem in _TYPE_PROBLEMS


def _without_marks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_marks(item) for key, item in value.items() if key != DECIMAL}
    return [_without_marks(item) for item in value] if isinstance(value, list) else value
