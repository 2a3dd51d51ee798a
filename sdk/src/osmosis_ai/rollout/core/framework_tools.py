"""The tools of an agent that is written with a framework, for ``get_tools``: they are stated once, in the framework.

What a framework's objects are is seen by what they have, so that none is imported that the agent does not use.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema
from osmosis_ai.rollout.core.toolbox import Toolbox

_ANY_TYPE = ["string", "number", "boolean", "object", "array", "null"]


def tools_of(source: Any) -> list[OpenAIFunctionToolSchema]:
    """The tools of ``source``, each name once.

    Args:
        source: an agent of openai-agents (its handoffs included, and the tools of the agents they lead to), an agent of
            pydantic-ai (the tool of a typed output included), a LangGraph or LangChain agent, one of their tools, a
            ``Toolbox``, a schema or a function; or a list of any of these.

    Raises:
        TypeError: it is none of these, or has tools that are known only when it runs, as those of an MCP server are.
        pydantic.ValidationError: a tool has no schema that a trainer takes.
    """
    found: dict[str, OpenAIFunctionToolSchema] = {}
    for schema in _tools_in(source, set()):
        found.setdefault(schema.function.name, schema)
    return list(found.values())


def _tools_in(source: Any, seen: set[int]) -> Iterator[OpenAIFunctionToolSchema]:
    if isinstance(source, OpenAIFunctionToolSchema):
        yield source
    elif isinstance(source, Toolbox):
        yield from source.schemas
    elif isinstance(source, Mapping) and isinstance(source.get("function"), Mapping):
        yield OpenAIFunctionToolSchema.model_validate(source)
    elif isinstance(source, list | tuple | set | frozenset):
        for each in source:
            yield from _tools_in(each, seen)
    elif hasattr(source, "tools") and hasattr(source, "handoffs"):
        if id(source) not in seen:  # agents may hand off to each other
            seen.add(id(source))
            yield from _tools_of_openai_agent(source, seen)
    elif hasattr(source, "params_json_schema"):  # openai-agents
        yield _schema(source.name, source.description, source.params_json_schema, source.strict_json_schema)
    elif hasattr(source, "toolsets") and hasattr(source, "run_sync"):  # pydantic-ai
        yield from _tools_of_pydantic_agent(source)
    elif hasattr(source, "tool_def"):
        yield _schema_of_definition(source.tool_def)
    elif hasattr(source, "nodes") and hasattr(source, "ainvoke"):  # LangGraph
        for node in source.nodes.values():
            yield from _tools_in(list(getattr(getattr(node, "bound", None), "tools_by_name", {}).values()), seen)
    elif hasattr(source, "args_schema") and hasattr(source, "ainvoke"):  # LangChain
        from langchain_core.utils.function_calling import convert_to_openai_tool

        declared = convert_to_openai_tool(source)["function"]
        yield _schema(declared["name"], declared.get("description"), declared.get("parameters"), None)
    elif callable(source) and not isinstance(source, type):
        yield from Toolbox(source).schemas
    else:
        raise TypeError(f"{_name(source)} has no tools that could be read; give tools_of an agent, or a list of tools.")


def _tools_of_openai_agent(agent: Any, seen: set[int]) -> Iterator[OpenAIFunctionToolSchema]:
    if getattr(agent, "mcp_servers", None):
        raise _known_too_late(agent)
    yield from _tools_in(agent.tools, seen)
    for target in agent.handoffs:
        handoff = target
        if hasattr(target, "handoffs"):
            from agents import handoff as handoff_to

            handoff = handoff_to(target)
        yield _schema(
            handoff.tool_name, handoff.tool_description, handoff.input_json_schema, handoff.strict_json_schema
        )
        # A handoff that was made by hand knows its agent by a weak reference alone.
        reference = getattr(handoff, "_agent_ref", None)
        led_to = target if hasattr(target, "handoffs") else reference and reference()
        if led_to is not None:
            yield from _tools_in(led_to, seen)


def _tools_of_pydantic_agent(agent: Any) -> Iterator[OpenAIFunctionToolSchema]:
    for toolset in agent.toolsets:
        tools = getattr(toolset, "tools", None)
        if not isinstance(tools, Mapping):
            raise _known_too_late(toolset)
        yield from map(_schema_of_definition, (tool.tool_def for tool in tools.values()))
    # The answer of a typed output is given by calling a tool; only the agent itself knows it.
    definitions: Iterable[Any] = getattr(getattr(agent, "_output_toolset", None), "_tool_defs", ())
    yield from map(_schema_of_definition, definitions)


def _schema_of_definition(definition: Any) -> OpenAIFunctionToolSchema:
    return _schema(definition.name, definition.description, definition.parameters_json_schema, definition.strict)


def _schema(name: str, description: Any, parameters: Any, strict: Any) -> OpenAIFunctionToolSchema:
    """A tool as the trainer takes it: an object with ``properties`` and ``required``, each property with a type."""
    known = {"type": "object", "required": [], **(parameters or {})}
    known["properties"] = {
        key: {"type": _ANY_TYPE, **value} if isinstance(value, Mapping) and not _says_what_it_is(value) else value
        for key, value in known.get("properties", {}).items()
    }
    function = {"name": name, "description": description or name, "parameters": known, "strict": bool(strict)}
    return OpenAIFunctionToolSchema.model_validate({"type": "function", "function": function})


def _says_what_it_is(schema: Mapping[str, Any]) -> bool:
    return bool({"type", "$ref", "allOf", "anyOf", "oneOf", "const", "enum", "if", "not"} & schema.keys())


def _known_too_late(source: Any) -> TypeError:
    return TypeError(f"The tools of {_name(source)} are known only when it runs: name the tools in get_tools yourself.")


def _name(source: Any) -> str:
    return f"{type(source).__module__.partition('.')[0]}.{type(source).__name__}"
