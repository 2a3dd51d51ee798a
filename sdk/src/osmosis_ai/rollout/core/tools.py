"""Tool calls: reading them, running them together, and writing their results.

What a model writes is untrusted: reading a tool call raises ``ToolArgumentError`` and nothing else, and writing a
result never raises.
"""

import asyncio
import dataclasses
import inspect
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set as AbstractSet
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from types import TracebackType
from typing import Any

from osmosis_ai.rollout.core.exceptions import ToolArgumentError, ToolExecutionError
from osmosis_ai.rollout.core.text import described, encodable, text_of
from osmosis_ai.rollout.core.watch import ToolOutcome, watched_tool_call
from osmosis_ai.rollout.core.where import place_of_function

__all__ = [
    "create_tool_error_result",
    "create_tool_result",
    "execute_tool_calls",
    "get_tool_call_info",
    "parse_tool_arguments",
    "serialize_tool_result",
]

logger = logging.getLogger(__name__)

_ERROR_PREFIX = "Error: "
MAX_ERROR_CHARACTERS = 2000
UNKNOWN_TOOL_CALL_ID = "unknown"

ToolMessage = dict[str, Any]
ToolExecutor = Callable[[dict[str, Any]], Awaitable[ToolMessage]]


@dataclasses.dataclass(frozen=True, slots=True)
class ContentParts:
    """A tool's result that is more than text: parts as in OpenAI's chat API, ``text`` and ``image_url``."""

    parts: list[dict[str, Any]]


def create_tool_result(tool_call_id: str, content: str | list[dict[str, Any]]) -> ToolMessage:
    """The message that answers a tool call; ``content`` is a text, or parts as in ``ContentParts``.

    Characters that UTF-8 cannot carry (lone surrogates, which a model may write) become ``?`` in a text.
    """
    if isinstance(content, str):
        content = encodable(content, errors="replace")
    return {"role": "tool", "content": content, "tool_call_id": tool_call_id}


def create_tool_error_result(tool_call_id: str, error_message: str) -> ToolMessage:
    """The message that tells the model why a tool call failed: ``Error: <error_message>``."""
    return create_tool_result(tool_call_id, f"{_ERROR_PREFIX}{error_message}")


def parse_tool_arguments(arguments: str | dict[str, Any]) -> dict[str, Any]:
    """The arguments of a tool call as a dict, from JSON text or as they are.

    Raises:
        ToolArgumentError: for text that is not JSON (the empty string included), JSON that is no object, or a value
            that is neither text nor a dict.
    """
    if isinstance(arguments, dict):
        return arguments
    if not isinstance(arguments, str):
        raise ToolArgumentError(f"Expected str or dict arguments, got {type(arguments).__name__}")
    try:
        decoded = json.loads(arguments)
    except json.JSONDecodeError as error:
        raise ToolArgumentError(f"Invalid JSON arguments: {error}") from error
    except ValueError as error:
        raise ToolArgumentError("Invalid JSON arguments: a number has too many digits") from error
    except RecursionError as error:
        raise ToolArgumentError("Invalid JSON arguments: nested too deeply") from error
    if not isinstance(decoded, dict):
        raise ToolArgumentError(f"Expected dict from JSON, got {type(decoded).__name__}")
    return decoded


def get_tool_call_info(tool_call: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Id, tool name and arguments of a tool call.

    What is absent or null reads as ``"unknown"``, ``""`` and ``{}``; so do blank arguments, which models send for tools
    without parameters.

    Raises:
        ToolArgumentError: for arguments that ``parse_tool_arguments`` refuses, with ``tool_call_id`` and ``tool_name``,
            and for a call that is not shaped like one.
    """
    if not isinstance(tool_call, dict):
        raise ToolArgumentError(f"Expected dict tool call, got {type(tool_call).__name__}")
    tool_call_id = _text_field(tool_call, "id", UNKNOWN_TOOL_CALL_ID)
    function = tool_call.get("function")
    if function is None:
        function = {}
    if not isinstance(function, dict):
        raise ToolArgumentError(f"Expected dict function, got {type(function).__name__}", tool_call_id)
    tool_name = _text_field(function, "name", "", tool_call_id)
    arguments = function.get("arguments")
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return tool_call_id, tool_name, {}
    try:
        return tool_call_id, tool_name, parse_tool_arguments(arguments)
    except ToolArgumentError as error:
        raise ToolArgumentError(str(error), tool_call_id=tool_call_id, tool_name=tool_name) from error


def _text_field(fields: dict[str, Any], key: str, default: str, tool_call_id: str = "") -> str:
    value = fields.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise ToolArgumentError(f"Expected str {key} in tool call, got {type(value).__name__}", tool_call_id)
    return value


async def execute_tool_calls(
    tool_calls: list[dict[str, Any]] | None,
    executor: ToolExecutor,
    *,
    max_concurrency: int | None = None,
    timeout_seconds: float | None = None,
    errors_as_results: bool = False,
) -> list[ToolMessage]:
    """Run all tool calls of one turn together; the results come in the order of the calls.

    Args:
        tool_calls: the calls; none, or ``None``, gives ``[]``.
        executor: the async function that runs one call and returns its tool message.
        max_concurrency: how many may run at once, at least 1; no limit by default.
        timeout_seconds: how long one call may run, time in the queue not counted; no limit by default. The call is
            cancelled, so it must not block the event loop.
        errors_as_results: answer a failed call with an error message for the model in place of raising.

    Raises:
        Exception: the first exception of any call, once the other calls have been cancelled and have ended.
        ToolExecutionError: as such an exception, for a call that ran out of time, cancelled itself, or called
            ``sys.exit``.
        TypeError: if ``executor`` is not async.
        ValueError: if a limit is not positive.
    """
    if max_concurrency is not None and max_concurrency < 1:
        raise ValueError(f"max_concurrency must be at least 1, got {max_concurrency}.")
    if timeout_seconds is not None and not (math.isfinite(timeout_seconds) and timeout_seconds > 0):
        raise ValueError(f"timeout_seconds must be a positive number of seconds, got {timeout_seconds}.")

    async def answer(tool_call: dict[str, Any]) -> ToolMessage:
        try:
            return await _run(tool_call, executor, timeout_seconds)
        except ExecutorMistakeError:
            raise
        except Exception as error:
            if not errors_as_results:
                raise
            return _error_result(tool_call, error)

    return await answer_together(tool_calls or (), answer, max_concurrency)


class ExecutorMistakeError(TypeError):
    """A mistake in the agent rather than in a tool call, so never shown to the model."""


async def _run(tool_call: dict[str, Any], executor: ToolExecutor, timeout_seconds: float | None) -> ToolMessage:
    call_id, tool_name = id_and_name(tool_call)
    with watched_tool_call(tool_name, call_id) as watch, ContainedCall(call_id, tool_name):
        pending = executor(tool_call)
        if not inspect.isawaitable(pending):
            name = getattr(executor, "__name__", type(executor).__name__)
            raise ExecutorMistakeError(
                f"The executor of execute_tool_calls must be async, but {name} returned"
                f" {type(pending).__name__}; declare it with 'async def'."
            )
        try:
            async with asyncio.timeout(timeout_seconds) as limit:
                message = await pending
        except TimeoutError as error:
            if not limit.expired():
                raise
            watch.outcome = ToolOutcome.TIMEOUT
            text = f"The tool took longer than {timeout_seconds:g} seconds"
            raise ToolExecutionError(text, call_id, tool_name) from error
        if not isinstance(message, dict):
            place = place_of_function(executor)
            name = getattr(executor, "__name__", type(executor).__name__)
            raise ExecutorMistakeError(
                f"The executor of execute_tool_calls must return a tool message, but {name}"
                f"{f' ({place})' if place else ''} returned {type(message).__name__}; return"
                " create_tool_result(tool_call_id, result)."
            )
        content = message.get("content")
        if isinstance(content, str) and content.startswith(_ERROR_PREFIX):
            watch.outcome = ToolOutcome.ERROR
        return message


class ContainedCall:
    """A tool call, of which what would end more than itself is raised as ``ToolExecutionError``."""

    __slots__ = ("_call",)

    def __init__(self, call_id: str = "", tool_name: str = "") -> None:
        self._call = (call_id, tool_name)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                raise ToolExecutionError("The tool was cancelled from within", *self._call) from error
        if isinstance(error, SystemExit):
            # Left alone, it would end the event loop and with it every other rollout.
            raise ToolExecutionError("The tool tried to exit the process", *self._call) from error


async def answer_together(
    tool_calls: Sequence[Any], answer: Callable[[Any], Awaitable[ToolMessage]], max_concurrency: int | None
) -> list[ToolMessage]:
    """``answer(call)`` for each, in order; on the first exception, or when cancelled, all end before it is raised."""
    slots = asyncio.Semaphore(max_concurrency or max(len(tool_calls), 1))

    async def answer_in_turn(tool_call: Any) -> ToolMessage:
        async with slots:
            return await answer(tool_call)

    tasks = [asyncio.create_task(answer_in_turn(tool_call)) for tool_call in tool_calls]
    ended: list[asyncio.Task[ToolMessage]] = []
    for task in tasks:
        task.add_done_callback(ended.append)
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            raise error
    return [task.result() for task in tasks]


def id_and_name(tool_call: Any) -> tuple[str, str]:
    """Id and tool name of a call that may be malformed."""
    call = tool_call if isinstance(tool_call, dict) else {}
    function = call.get("function")
    tool_call_id, name = call.get("id"), function.get("name") if isinstance(function, dict) else None
    return (
        tool_call_id if isinstance(tool_call_id, str) else UNKNOWN_TOOL_CALL_ID,
        name if isinstance(name, str) else "",
    )


def _error_result(tool_call: Any, error: Exception) -> ToolMessage:
    tool_call_id, name = id_and_name(tool_call)
    logger.warning(
        "Tool call %a of %a failed with %s; the model gets the error",
        tool_call_id,
        name,
        type(error).__name__,
        exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
    )
    text = _text_of(error)
    if not isinstance(error, ToolExecutionError):
        text = described(error, text)
    return create_tool_error_result(tool_call_id, text[:MAX_ERROR_CHARACTERS])


def serialize_tool_result(result: Any) -> str:
    """The text a model reads as the result of a tool; never raises.

    A string is passed on as it is, a number as its digits, ``True`` and ``False`` in lower case, anything else as
    strict JSON with readable non-ASCII characters. In JSON, models, dataclasses and mappings are objects; sets, arrays
    and other collections are lists; dates, bytes and other objects are strings; NaN and infinities are ``null``.
    Characters that UTF-8 cannot carry (lone surrogates) become ``?``.
    """
    if isinstance(result, str):
        text = result
    elif isinstance(result, int) and not isinstance(result, bool):
        text = _digits(result)
    elif isinstance(result, float) and math.isfinite(result):
        text = float.__repr__(result)
    else:
        text = _json_text(result)
    return encodable(text, errors="replace")


# Deeper than any result a model can make use of, and well inside the interpreter's recursion limit.
_MAX_DEPTH = 100
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def _digits(number: int) -> str:
    # str() refuses integers longer than sys.get_int_max_str_digits(); Decimal does not.
    return format(Decimal(number), "f")


def _json_text(value: Any) -> str:
    with suppress(Exception):
        return _ENCODER.encode(value)
    return _ENCODER.encode(_json_value(value, ()))


def _json_value(value: Any, ancestors: tuple[int, ...]) -> Any:
    """``value`` in the types ``json.dumps`` knows; total, because it is what is left when that has failed."""
    if id(value) in ancestors or len(ancestors) > _MAX_DEPTH:
        return "..."
    with suppress(Exception):
        return _convert(value, (*ancestors, id(value)))
    return _text_of(value)


def _convert(value: Any, ancestors: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        with suppress(ValueError):  # more digits than the interpreter will write, or read again
            format(value, "d")
            return value
        return _digits(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, Enum):
        return _json_value(value.value, ancestors)
    if isinstance(value, type):
        return str(value)
    if isinstance(value, Mapping):
        return {_key(key): _json_value(item, ancestors) for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return [_json_value(item, ancestors) for item in _in_order(value)]
    if isinstance(value, Sequence):
        return [_json_value(item, ancestors) for item in value]
    if dataclasses.is_dataclass(value):
        return {field.name: _json_value(getattr(value, field.name), ancestors) for field in dataclasses.fields(value)}
    if callable(model_dump := getattr(value, "model_dump", None)):  # pydantic
        return _json_value(model_dump(mode="json"), ancestors)
    if callable(tolist := getattr(value, "tolist", None)):  # numpy, pandas, torch
        return _json_value(tolist(), ancestors)
    return _text_of(value)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    return serialize_tool_result(key) if key is None or isinstance(key, int | float) else _text_of(key)


def _in_order(items: AbstractSet[Any]) -> list[Any]:
    # The order of a set of strings differs from process to process; the same result must read the same.
    with suppress(Exception):
        return sorted(items)
    return sorted(items, key=_text_of)


def _text_of(value: Any) -> str:
    return text_of(value, f"<{type(value).__name__}>")
