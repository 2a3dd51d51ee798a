"""A type of Python, as a model is shown it and as pydantic reads it.

What is shown is what model servers accept: no ``$ref``, no ``title``, ``anyOf`` and ``enum`` for the rarer ``oneOf``
and ``const``; a type that no model can write is refused.
"""

import json
import types
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any, NotRequired, Required, Union

from pydantic import Field, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from osmosis_ai.rollout.core.tool_arguments import DECIMAL, plain

_KNOWN = "Decimal, int, float, str, bool, list, dict, Literal, an Enum, a TypedDict or a pydantic model"


def adapter_and_schema(annotation: Any, where: str) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    """What reads the type of a parameter, and its JSON Schema, with the marks that ``fit`` needs.

    Raises:
        TypeError: no model can write it; the sentence begins with ``where``.
    """
    kind = getattr(bare(annotation), "__name__", str(annotation))
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


def bare_annotated(annotation: Any) -> Any:
    """The type without ``Annotated``."""
    return annotation.__origin__ if typing.get_origin(annotation) is Annotated else annotation


def bare(annotation: Any) -> Any:
    """The type without ``Annotated`` and ``| None``."""
    annotation = bare_annotated(annotation)
    if typing.get_origin(annotation) in (Union, types.UnionType):
        others = [choice for choice in typing.get_args(annotation) if choice is not type(None)]
        return bare(others[0]) if len(others) == 1 else annotation
    return annotation


def is_json(value: Any) -> bool:
    """Whether it can be sent as it is: strict JSON in UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError):
        return False
    return True
