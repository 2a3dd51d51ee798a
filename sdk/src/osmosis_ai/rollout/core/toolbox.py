"""The tools of an agent: ordinary functions, shown to the model and called for it.

A ``Toolbox`` never changes once it is made; any number of rollouts may use one at once. What a model writes ends in one
tool message for each call, in the order of the calls. What a tool itself does wrong ends the rollout.
"""

import asyncio
import inspect
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, Inexact
from functools import partial, update_wrapper
from types import FunctionType
from typing import Any, TypeVar, overload

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.exceptions import ToolArgumentError, ToolExecutionError
from osmosis_ai.rollout.core.offload import call_in_thread
from osmosis_ai.rollout.core.schemas import TOOL_NAME_IN_WORDS, TOOL_NAME_PATTERN, OpenAIFunctionToolSchema
from osmosis_ai.rollout.core.text import cut, described, text_of
from osmosis_ai.rollout.core.tool_arguments import EXACT, TOO_LONG, UnfitError, decode_arguments, plain
from osmosis_ai.rollout.core.tool_schema import called_by, read_signature, schema_of
from osmosis_ai.rollout.core.tool_types import is_json
from osmosis_ai.rollout.core.tools import (
    ContainedCall,
    ContentParts,
    ToolMessage,
    answer_together,
    create_tool_error_result,
    create_tool_result,
    id_and_name,
    serialize_tool_result,
)
from osmosis_ai.rollout.core.watch import ToolOutcome, watched_tool_call
from osmosis_ai.rollout.core.where import place_of_function

MAX_ARGUMENT_CHARACTERS = 500
"""Of the arguments in the message of a time-out."""

_OPTIONS = "__osmosis_tool__"  # the attribute of a function that holds them

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """What a function does not say of itself."""

    name: str | None = None
    description: str | None = None
    timeout_seconds: float | None = None


@overload
def tool(function: FunctionT, /) -> FunctionT: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None, timeout_seconds: float | None = None
) -> Callable[[FunctionT], FunctionT]: ...
def tool(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_seconds: float | None = None,
) -> Any:
    """A function with options, as a tool; ``function`` itself stays as it is, and is a tool without them as well.

    Args:
        name: for the model; default the function's.
        description: for the model; default the docstring.
        timeout_seconds: of one call; then the model is told. A plain function runs on in its thread, and nobody waits.

    Raises:
        TypeError: what is given is no function, or ``name`` or ``description`` no text.
        ValueError: ``timeout_seconds`` is not above 0.
    """
    for option, text in (("name", name), ("description", description)):
        if not isinstance(text, str | None):
            raise TypeError(f"The {option} of a tool must be a text, got {text!r}.")
    limit = timeout_seconds
    if limit is not None and not (isinstance(limit, int | float) and 0 < limit < math.inf):
        raise ValueError(f"timeout_seconds must be a positive number of seconds, got {limit!r}.")
    mark = partial(_with_options, options=ToolOptions(name, description, timeout_seconds))
    return mark if function is None else mark(function)


def _with_options(function: Any, options: ToolOptions) -> Any:
    """Another that does the same, so that a function can be two tools, and a bound method or a builtin one."""
    _require_function(function)
    if isinstance(function, FunctionType):
        made: Any = FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        made.__kwdefaults__ = function.__kwdefaults__
        made = update_wrapper(made, function)
        del made.__wrapped__
        made.__dict__.update(function.__dict__)
    else:
        made = partial(function)
    setattr(made, _OPTIONS, options)
    return made


def _require_function(function: Any) -> None:
    if not callable(function) or inspect.isclass(function):
        raise TypeError(f"{function!r} cannot be a tool: write a function, as in Toolbox(add, subtract).")


class Tool(ABC):
    """A tool as a ``Toolbox`` calls it. For a function there is no need of one: give the ``Toolbox`` the function.

    Args:
        schema: as the model is given it.
        timeout_seconds: of one call; no limit by default.
    """

    def __init__(self, schema: OpenAIFunctionToolSchema, timeout_seconds: float | None = None) -> None:
        self.schema = schema
        self.name = schema.function.name
        self.timeout_seconds = timeout_seconds

    @abstractmethod
    async def run(self, arguments: dict[str, Any], ctx: RolloutContext, state: Any) -> Any:
        """Its result, to be written as text; ``ContentParts`` are passed on as they are.

        Args:
            arguments: as the model wrote them, decoded: numbers are ``Decimal``, for which see ``plain_arguments``.
            ctx, state: as they were given to ``Toolbox.answer``.

        Raises:
            ToolExecutionError: what the model is told; anything else ends the rollout.
        """


def plain_arguments(arguments: dict[str, Any], tool_name: str) -> dict[str, Any]:
    """Decoded arguments with ``int`` and ``float`` for ``Decimal``.

    Raises:
        ToolArgumentError: they are nested too deeply, or a number is NaN, infinite, or beyond a float.
    """
    with _told_to_the_model(tool_name):
        return {key: plain(value, (key,)) for key, value in arguments.items()}


class FunctionTool(Tool):
    """A tool that is a function, ``async`` or plain; a plain one runs in a thread."""

    def __init__(self, function: Callable[..., Any], state: type | None = None) -> None:
        _require_function(function)
        options: ToolOptions = getattr(function, _OPTIONS, None) or ToolOptions()
        called = called_by(function)
        source = inspect.unwrap(called)
        name = options.name or str(getattr(source, "__name__", ""))
        if not TOOL_NAME_PATTERN.match(name) or name == "__call__":
            raise TypeError(
                f"{function!r} has no name that a tool can have: write a `def`, or tool(name=...), with"
                f" {TOOL_NAME_IN_WORDS}, not {name!r}."
            )
        if inspect.isgeneratorfunction(source) or inspect.isasyncgenfunction(source):
            raise TypeError(f"Tool {name} yields: write a function that returns all of its result.")
        given = (RolloutContext,) if state is None else (RolloutContext, state)
        self._function = function
        self._is_async = inspect.iscoroutinefunction(called)
        self._parameters, self._given = read_signature(function, name, given)
        description = options.description or inspect.getdoc(source) or name
        declared = {"name": name, "description": description, "parameters": schema_of(self._parameters)}
        if not is_json(declared):
            raise TypeError(f"Tool {name} has a text that UTF-8 cannot carry, a lone surrogate: leave it out.")
        schema = OpenAIFunctionToolSchema.model_validate({"type": "function", "function": declared})
        super().__init__(schema, options.timeout_seconds)

    async def run(self, arguments: dict[str, Any], ctx: RolloutContext, state: Any) -> Any:
        """Check the arguments, add what is given, and call the function."""
        values = self._read(arguments)
        for name, kind in self._given.items():
            values[name] = ctx if kind is RolloutContext else _checked_state(state, kind, self.name)
        if self._is_async:
            result = await self._function(**values)
        else:
            result = await call_in_thread(lambda: self._function(**values))
            result = await result if inspect.isawaitable(result) else result
        if inspect.iscoroutine(result):  # as text it would be an answer to the model
            result.close()
            place = place_of_function(self._function)
            raise TypeError(f"it returned a 'coroutine' object{f' ({place})' if place else ''}")
        return result

    def _read(self, arguments: dict[str, Any]) -> dict[str, Any]:
        missing = [name for name, parameter in self._parameters.items() if parameter.required and name not in arguments]
        if missing or not arguments.keys() <= self._parameters.keys():
            problem = f"{', '.join(missing)} missing" if missing else "another argument given"
            takes = f"the arguments {', '.join(self._parameters)}" if self._parameters else "no arguments"
            raise ToolArgumentError(f"{self.name} takes {takes}: {problem}")
        values: dict[str, Any] = {}
        with _told_to_the_model(self.name):
            for name, parameter in self._parameters.items():
                values[name] = parameter.read(arguments[name]) if name in arguments else parameter.new_default()
        return values


@contextmanager
def _told_to_the_model(tool_name: str) -> Iterator[None]:
    try:
        yield
    except UnfitError as problem:
        raise ToolArgumentError(problem.sentence(tool_name)) from None
    except RecursionError:
        raise ToolArgumentError(f"the arguments of {tool_name} are nested too deeply") from None


def _checked_state(state: Any, kind: type, tool_name: str) -> Any:
    if not isinstance(state, kind):
        raise TypeError(f"the tool {tool_name} wants a {kind.__name__}: write answer(ctx, tool_calls, state)")
    return state


class Toolbox:
    """The tools of an agent.

    A tool is a function with a docstring, each of its parameters annotated ``type``, ``Annotated[type, "description"]``
    or with pydantic's ``Field``. A parameter annotated ``RolloutContext``, or ``state``, is filled in and not shown to
    the model. A result is written as text: a string as it is, a ``Decimal`` with every digit, anything else as
    ``serialize_tool_result`` does.

    Args:
        tools: functions, or ready-made ``Tool`` objects.
        state: the class of what a rollout keeps for its tools, such as a connection.
        max_concurrency: how many calls of one ``answer`` may run at once, at least 1; no limit by default.

    Raises:
        TypeError: a function cannot be a tool, or two have one name; the sentence says what to write.
        ValueError: ``max_concurrency`` is below 1.
    """

    def __init__(
        self,
        *tools: Callable[..., Any] | Tool,
        state: type | None = None,
        max_concurrency: int | None = None,
    ) -> None:
        if max_concurrency is not None and max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, got {max_concurrency}.")
        if state is not None and not isinstance(state, type):
            raise TypeError(f"state must be the class of what a rollout keeps, not {state!r}.")
        self._max_concurrency = max_concurrency
        self._state = state
        self._tools: dict[str, Tool] = {}
        for entry in tools:
            made = entry if isinstance(entry, Tool) else FunctionTool(entry, state)
            if made.name in self._tools:
                raise TypeError(f"Two tools have the name {made.name}: give one another, with tool(name=...).")
            self._tools[made.name] = made

    @property
    def schemas(self) -> list[OpenAIFunctionToolSchema]:
        """What the model is told, for ``get_tools``: a new list each time, of schemas that all rollouts share.

        To change one for a rollout, change a copy: ``schema.model_copy(deep=True)``.
        """
        return [entry.schema for entry in self._tools.values()]

    async def answer(
        self, ctx: RolloutContext, tool_calls: Sequence[Any] | None, state: Any = None
    ) -> list[ToolMessage]:
        """One tool message for each call of a reply, in their order; the calls run together.

        Each call is timed, counted and traced. What the model did wrong, a time-out and a ``ToolExecutionError`` are
        answered with a message that begins with ``Error: ``.

        Args:
            tool_calls: as the model wrote them; none, or ``None``, gives ``[]``.
            state: for the parameters of its class.

        Raises:
            TypeError: ``state`` is not of the class that the toolbox was made with, if any.
            ToolExecutionError: a tool failed in any other way; its cause is the exception. The calls beside it have
                been cancelled. Left alone, it ends the rollout with the outcome ``tool_error``.
        """
        if state is not None and not isinstance(state, self._state or ()):
            kind = type(state).__name__
            raise TypeError(f"No tool takes a {kind} that the model does not see: write Toolbox(..., state={kind}).")
        answer_one = partial(self._answer, ctx, state)
        return await answer_together(tool_calls or (), answer_one, self._max_concurrency)

    async def _answer(self, ctx: RolloutContext, state: Any, tool_call: Any) -> ToolMessage:
        call_id, name = id_and_name(tool_call)
        started = time.monotonic()
        with watched_tool_call(name, call_id) as watch, ContainedCall(call_id, name):
            try:
                return create_tool_result(call_id, await self._run(ctx, tool_call, call_id, name, state))
            except _ModelError as told:
                watch.outcome = ToolOutcome.TIMEOUT if told.is_timeout else ToolOutcome.ERROR
                return create_tool_error_result(call_id, str(told))
            finally:
                ctx.record_tool_call(latency_ms=(time.monotonic() - started) * 1000)

    async def _run(
        self, ctx: RolloutContext, tool_call: Any, call_id: str, name: str, state: Any
    ) -> str | list[dict[str, Any]]:
        found = self._tools.get(name)
        if found is None:
            raise _ModelError(f"no such tool; there are {', '.join(self._tools) or 'none'}")
        limit = asyncio.timeout(found.timeout_seconds)
        written = tool_call["function"].get("arguments")
        try:
            arguments = decode_arguments(written)
            async with limit:
                result = await found.run(arguments, ctx, state)
            if isinstance(result, ContentParts):
                return result.parts
            return f"{EXACT.normalize(result):zf}" if isinstance(result, Decimal) else serialize_tool_result(result)
        except ToolExecutionError as error:
            raise _ModelError(str(error)) from error
        except Inexact:
            raise _ModelError(TOO_LONG) from None
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                raise _ModelError(_time_out(found, written), is_timeout=True) from None
            # The text of a KeyError is no more than the key.
            text = text_of(error)
            problem = described(error) if isinstance(error, KeyError) or not text else text
            raise ToolExecutionError(f"{name} failed: {problem}", call_id, name) from error


class _ModelError(Exception):
    """What the model is told of a call in place of a result."""

    def __init__(self, message: str, *, is_timeout: bool = False) -> None:
        super().__init__(message)
        self.is_timeout = is_timeout


def _time_out(found: Tool, written: Any) -> str:
    text = serialize_tool_result(written or {})
    shown = cut(text, MAX_ARGUMENT_CHARACTERS)
    return f"{found.name} took longer than {found.timeout_seconds:g} seconds with the arguments {shown}"
