"""What a function's signature says to a model, and to the validation of what the model sends back.

Both come from pydantic, parameter by parameter, so that no parameter's name can collide with anything. What is shown is
what model servers accept: no ``$ref``, no ``title``, ``anyOf`` and ``enum`` for the rarer ``oneOf`` and ``const``.
"""

import copy
import functools
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from types import SimpleNamespace
from typing import Annotated, Any, NotRequired, Optional, Required, Union

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticUndefined, to_jsonable_python

from osmosis_ai.rollout.core.text import cut
from osmosis_ai.rollout.core.tool_arguments import DECIMAL, UnfitError, fit, plain

_KNOWN = "Decimal, int, float, str, bool, list, dict, Literal, an Enum, a TypedDict or a pydantic model"
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
        kind = next((kind for kind in given if _bare(annotation) is kind), None)
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
    if parameter.default is None and type(None) not in typing.get_args(_bare_annotated(annotation)):
        return Optional[annotation]  # noqa: UP045 - the annotation may be anything
    return annotation


def _bare_annotated(annotation: Any) -> Any:
    return annotation.__origin__ if typing.get_origin(annotation) is Annotated else annotation


def _bare(annotation: Any) -> Any:
    """The type without ``Annotated`` and ``| None``."""
    annotation = _bare_annotated(annotation)
    if typing.get_origin(annotation) in (Union, types.UnionType):
        others = [choice for choice in typing.get_args(annotation) if choice is not type(None)]
        return _bare(others[0]) if len(others) == 1 else annotation
    return annotation


def _parameter(parameter: inspect.Parameter, annotation: Any, where: str) -> Parameter:
    default = parameter.default
    if isinstance(default, FieldInfo):
        annotation = Annotated[annotation, default]
    notes = annotation.__metadata__ if typing.get_origin(annotation) is Annotated else ()
    factory = None
    if default is parameter.empty or isinstance(default, FieldInfo):
        default, factory = _default_of_fields([note for note in notes if isinstance(note, FieldInfo)], where)
    adapter, schema = _adapter_and_schema(annotation, where)
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


def is_json(value: Any) -> bool:
    """Whether it can be sent as it is: strict JSON in UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError):
        return False
    return True


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
        bare = _bare(annotation)
        kind = bare.__name__ if isinstance(bare, type) and not typing.get_origin(bare) else str(bare)
        raise TypeError(
            f"{where} has the type {kind.removeprefix('typing.')} and the default"
            f" {cut(repr(default), _MAX_DEFAULT_CHARACTERS)}, which is none: write a default of that type, or a type"
            " that has both, as in `int | str`."
        )


def _is_of_type(problem: str) -> bool:
    return problem.endswith("_type") or problem in _TYPE_PROBLEMS


def _adapter_and_schema(annotation: Any, where: str) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    kind = getattr(_bare(annotation), "__name__", str(annotation))
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(_with_descriptions(annotation))
        schema = adapter.json_schema(schema_generator=_SchemaGenerator)
    except PydanticSchemaGenerationError:
        raise TypeError(
            f"{where} has the type {kind}, which no model can write: use {_KNOWN}."
            f" If it is what a rollout keeps, write Toolbox(..., state={kind})."
        ) from None
    except _UnwritableError as error:
        raise TypeError(f"{where} has the type {error}, which no model can write: use {_KNOWN}.") from None
    except (PydanticUserError, NameError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        if "typing_extensions.TypedDict" in reason:
            raise TypeError(
                f"{where} has a TypedDict of `typing`: before Python 3.12, import it from `typing_extensions`."
            ) from None
        raise TypeError(f"{where} has the type {kind}, which has no schema ({reason}): use {_KNOWN}.") from None
    definitions = schema.pop("$defs", {})
    schema = _clean(schema, definitions, (), where)
    if not schema.keys() & {"type", "anyOf", "enum", "allOf", "not"}:
        raise TypeError(f"{where} has the type {kind}, which says nothing to a model: use {_KNOWN}.")
    return adapter, schema


def _with_descriptions(annotation: Any) -> Any:
    """The annotation with each ``Annotated[type, "description"]`` within it as pydantic knows it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        kind, *notes = arguments
        described = (Field(description=note) if isinstance(note, str) else note for note in notes)
        return Annotated[(_with_descriptions(kind), *described)]
    if origin in (Union, types.UnionType):
        return Union[tuple(map(_with_descriptions, arguments))]  # noqa: UP007 - the choices are known now
    if origin in (list, set, frozenset, dict):
        return origin[tuple(map(_with_descriptions, arguments))]
    return annotation


class _UnwritableError(Exception):
    """A type that has a JSON Schema, but none that a model could follow."""


class _SchemaGenerator(GenerateJsonSchema):
    def bytes_schema(self, schema: Any) -> JsonSchemaValue:
        raise _UnwritableError("bytes")

    def enum_schema(self, schema: Any) -> JsonSchemaValue:
        kinds = {type(member.value).__name__ for member in schema["members"] if not _is_scalar(member.value)}
        if kinds:
            raise _UnwritableError(f"{schema['cls'].__name__}, an Enum of {', '.join(sorted(kinds))}")
        return super().enum_schema(schema)

    def literal_schema(self, schema: Any) -> JsonSchemaValue:
        if others := [value for value in schema["expected"] if not _is_scalar(value)]:
            raise _UnwritableError(f"Literal[{', '.join(map(str, others))}]")
        return super().literal_schema(schema)

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        shown = super().model_schema(schema)
        for name, field in schema["cls"].model_fields.items():
            _describe(shown, {name, field.alias}, field.metadata)
        return shown

    def typed_dict_schema(self, schema: Any) -> JsonSchemaValue:
        shown = super().typed_dict_schema(schema)
        for name, annotation in _hints(schema.get("cls")).items():
            while typing.get_origin(annotation) in (Required, NotRequired):
                (annotation,) = typing.get_args(annotation)
            _describe(shown, {name}, getattr(annotation, "__metadata__", ()))
        return shown

    def complex_schema(self, schema: Any) -> JsonSchemaValue:
        raise _UnwritableError("complex")

    def decimal_schema(self, schema: Any) -> JsonSchemaValue:
        """A number, where pydantic also offers a text: models that can send either send text."""
        described = super().decimal_schema(schema)
        return {**next(iter(described.get("anyOf", [described]))), "type": "number", DECIMAL: True}


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _hints(kind: Any) -> dict[str, Any]:
    with suppress(Exception):  # pydantic has resolved them by means of its own
        return typing.get_type_hints(kind, include_extras=True)
    return {}


def _describe(shown: JsonSchemaValue, names: set[str | None], notes: Iterable[Any]) -> None:
    """Give the property of one of these names the first text among its notes, if it has no description."""
    text = next((note for note in notes if isinstance(note, str)), None)
    for name in names & shown.get("properties", {}).keys():
        if text is not None:
            shown["properties"][name].setdefault("description", text)


_SCHEMAS = frozenset({"properties", "patternProperties"})
_LISTS_OF_SCHEMAS = frozenset({"anyOf", "allOf"})
_SINGLE_SCHEMAS = frozenset({"items", "additionalProperties", "not", "propertyNames"})


def _clean(schema: Any, definitions: Mapping[str, Any], within: tuple[str, ...], where: str) -> Any:
    """A schema with its references put in place and no more than a model server takes."""
    if not isinstance(schema, dict):
        return schema
    schema = dict(schema)
    if (reference := schema.pop("$ref", None)) is not None:
        name = reference.rpartition("/")[2]
        if name in within:
            raise TypeError(f"{where} has a type that contains itself ({name}): write one of a fixed depth.")
        return {
            **_clean(definitions[name], definitions, (*within, name), where),
            **_clean(schema, definitions, within, where),
        }
    if "prefixItems" in schema:
        raise TypeError(
            f"{where} has a tuple of fixed length, which many model servers refuse: use list, or a TypedDict."
        )
    schema.pop("title", None)
    schema.pop("discriminator", None)
    if "oneOf" in schema:
        schema["anyOf"] = schema.pop("oneOf")
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if "default" in schema:
        if isinstance(schema["default"], str) and any(
            DECIMAL in choice for choice in (schema, *schema.get("anyOf", ()))
        ):
            schema["default"] = plain(Decimal(schema["default"]))
        if schema["default"] is None or not is_json(schema["default"]):
            del schema["default"]
    for key, value in schema.items():
        if key in _SCHEMAS:
            schema[key] = {name: _clean(item, definitions, within, where) for name, item in value.items()}
        elif key in _LISTS_OF_SCHEMAS:
            schema[key] = [_clean(item, definitions, within, where) for item in value]
        elif key in _SINGLE_SCHEMAS:
            schema[key] = _clean(value, definitions, within, where)
    return schema


def _without_marks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_marks(item) for key, item in value.items() if key != DECIMAL}
    return [_without_marks(item) for item in value] if isinstance(value, list) else value
