"""Eval functions: what scores the conversation of a run. Any reward function of the SDK is one.

The first parameter's name decides what a function is given: ``solution_str`` the text of the last answer
(``EvalMode.SIMPLE``), ``messages`` the whole conversation or ``result`` the whole result (``EvalMode.FULL``). Its
signature is checked before it is ever called, and it is passed only what it takes.
"""

import asyncio
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from osmosis_ai.rollout.core.base import RolloutResult
from osmosis_ai.rollout.core.exceptions import RewardError
from osmosis_ai.rollout.core.jsonable import copy_json
from osmosis_ai.rollout.core.loading import import_module_attribute
from osmosis_ai.rollout.core.messages import get_message_role, get_message_text
from osmosis_ai.rollout.core.offload import call_in_thread
from osmosis_ai.rollout.core.reward_parts import split_reward
from osmosis_ai.rollout.core.schemas import RolloutMetrics
from osmosis_ai.rollout.core.text import described as told, shortened, text_of
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError

DEFAULT_TIME_LIMIT_SECONDS = 300.0
MAX_ERROR_CHARACTERS = 500
MAX_SCORE = 1e100
"""Squares of what is larger, and their sums, are no numbers."""


RESULT = "result"
"""The argument that is the terminal callback of the run, as a dict: ``docs/protocol.md``, section 5.1."""


class EvalFnError(CLIError):
    """An eval function that cannot be loaded or called, or whose result is no score."""


class EvalFnPathError(EvalFnError, UsageError):
    """The function is not named as ``module:attribute``."""


class NoRewardError(EvalFnError):
    """The function returned ``None``: there is nothing to score here, which is neither a failure nor a 0."""


class EvalMode(StrEnum):
    """What a function is given as its first argument."""

    SIMPLE = "simple"
    FULL = "full"


# By the name of the first parameter; then the names each mode offers: what is always offered, and what only a
# parameter of that very name asks for.
_MODES = {"solution_str": EvalMode.SIMPLE, "messages": EvalMode.FULL, RESULT: EvalMode.FULL}
_OFFERED = {
    EvalMode.SIMPLE: ("solution_str", "ground_truth", "extra_info"),
    EvalMode.FULL: ("messages", "ground_truth", "metadata"),
}
_OFFERED_ON_REQUEST = {EvalMode.SIMPLE: ("metadata", RESULT), EvalMode.FULL: ("extra_info", RESULT)}


class Score(float):
    """A score with parts."""

    components: dict[str, float]

    def __new__(cls, value: float, components: dict[str, float]) -> "Score":
        """The number ``value``, made of ``components``."""
        score = super().__new__(cls, value)
        score.components = components
        return score


class EvalFnWrapper:
    """An eval function under a name, with its signature checked.

    Args:
        fn: a plain or coroutine function, or any callable. A plain one runs in a thread of its own, several at a time.
        name: what reports call it.
        time_limit_seconds: how long one call may take; the thread of a plain function that takes longer is abandoned.

    Raises:
        EvalFnError: the first parameter is neither ``solution_str`` nor ``messages``, or a parameter without default is
            not among what such a function is given.
    """

    def __init__(
        self, fn: Callable[..., Any], name: str, time_limit_seconds: float = DEFAULT_TIME_LIMIT_SECONDS
    ) -> None:
        self.fn = fn
        self.name = name
        self.time_limit_seconds = time_limit_seconds
        parameters = _parameters(fn, name)
        self._mode = _mode(parameters, name)
        self._accepted = _accepted(parameters, self._mode, name)
        self.is_async = _is_coroutine_function(fn)
        """Whether calls can overlap in one thread."""

    async def __call__(
        self,
        messages: Sequence[Mapping[str, Any]],
        ground_truth: Any,
        metadata: Any,
        result: Mapping[str, Any] | None = None,
    ) -> float:
        """The score of a conversation. The function gets copies of its own.

        ``result``: what else the trainer is told of the run, such as ``finish_reason`` and ``metrics``.

        Raises:
            NoRewardError: the function returned ``None``.
            EvalFnError: it returned no finite number, or took too long.
            Exception: what it raised.
        """
        try:
            async with asyncio.timeout(self.time_limit_seconds) as limit:
                arguments = self.arguments(messages, ground_truth, metadata, result)
                return await self._score(arguments, in_thread=not self.is_async)
        except TimeoutError:
            if not limit.expired():
                raise
            raise EvalFnError(f"{self.name} took longer than {self.time_limit_seconds:g} s.") from None

    def takes(self, name: str) -> bool:
        """Whether the function is given the argument ``name``."""
        return name in self._accepted

    async def call_here(
        self,
        messages: Sequence[Mapping[str, Any]],
        ground_truth: Any,
        metadata: Any,
        result: Mapping[str, Any] | None = None,
    ) -> float:
        """As a call, but a plain function runs in this thread and without a time limit: for many calls in a row."""
        return await self._score(self.arguments(messages, ground_truth, metadata, result), in_thread=False)

    async def _score(self, arguments: Mapping[str, Any], *, in_thread: bool) -> float:
        call = functools.partial(self.fn, **arguments)
        try:
            result = await call_in_thread(_contained, call, self.name) if in_thread else call()
            if inspect.isawaitable(result):
                result = await result
        except SystemExit as error:
            raise _ended(self.name, error) from error
        return self.checked(result)

    def arguments(
        self,
        messages: Sequence[Mapping[str, Any]],
        ground_truth: Any,
        metadata: Any,
        result: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The keyword arguments of one call: copies of those that the function takes."""
        offered: dict[str, Callable[[], Any]] = {
            "solution_str": lambda: last_answer(messages),
            "messages": lambda: [copy_json(dict(message)) for message in messages],
            "ground_truth": lambda: ground_truth,
            "extra_info": lambda: copy_json(metadata),
            "metadata": lambda: copy_json(metadata),
            RESULT: lambda: copy_json({**(result or {}), "final_messages": list(map(dict, messages))}),
        }
        return {name: offered[name]() for name in self._accepted}

    def checked(self, result: Any) -> float:
        """``result`` as a score: a finite number, ``bool`` and foreign number types included, or a dict with parts.

        Raises:
            NoRewardError: it is ``None``.
            EvalFnError: it is no finite number, nor a dict with one under ``reward``.
        """
        try:
            result, components = split_reward(result)
        except RewardError as error:
            raise EvalFnError(f"{self.name} must return a number, or one with parts. {error}") from error
        if result is None:
            raise NoRewardError(f"{self.name} returned None, which is no score.")
        if not hasattr(type(result), "__float__"):
            raise EvalFnError(f"{self.name} must return a number, got {type(result).__name__}.")
        try:
            score = float(result)
        except Exception as error:
            raise EvalFnError(f"{self.name} must return a number, got {type(result).__name__}: {error}.") from error
        if not math.isfinite(score):
            raise EvalFnError(f"{self.name} must return a finite number, got {score}.")
        if abs(score) > MAX_SCORE:
            raise EvalFnError(f"{self.name} must return a score of at most {MAX_SCORE:g}, got {score:g}: scale it.")
        return Score(score, components) if components else score


def as_told(result: RolloutResult) -> dict[str, Any]:
    """What the trainer is told of a run beside its messages, as the argument ``result`` has it."""
    metrics = result.metrics
    return {
        "status": result.status,
        "finish_reason": result.finish_reason,
        "reward": result.reward,
        "metrics": metrics.model_dump() if isinstance(metrics, RolloutMetrics) else None,
        "extra_fields": result.extra_fields,
    }


def last_answer(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the last assistant message that has a content, ``""`` if there is none; text parts are joined."""
    for message in reversed(messages):
        if get_message_role(dict(message)) == "assistant" and (content := message.get("content")) is not None:
            return get_message_text({"content": content}) if isinstance(content, list) else str(content)
    return ""


def load_eval_fn(module_path: str) -> Callable[..., Any]:
    """Import the function that ``module_path`` (``module:attribute``, split at the last colon) names.

    Raises:
        EvalFnError: it cannot be imported, or is not callable.
    """
    try:
        value = import_module_attribute(module_path)
    except CLIError as error:
        kind = EvalFnPathError if isinstance(error, UsageError) else EvalFnError
        raise kind(f"Cannot load eval function {module_path!r}: {error}") from error
    if not callable(value):
        raise EvalFnError(
            f"Cannot load eval function {module_path!r}: it is of type {type(value).__name__}, which is not callable; "
            "name a function."
        )
    return value  # type: ignore[no-any-return]  # whatever the user's module holds


def load_eval_fns(paths: Sequence[str]) -> list[EvalFnWrapper]:
    """Load the functions that ``paths`` name, each under its path.

    Raises:
        EvalFnError: a path appears twice, cannot be loaded, or its function cannot be called as an eval function.
    """
    wrappers: list[EvalFnWrapper] = []
    for path in paths:
        if any(wrapper.name == path for wrapper in wrappers):
            raise EvalFnError(f"Duplicate eval function path: {path!r}; name each function once.")
        wrappers.append(EvalFnWrapper(load_eval_fn(path), path))
    return wrappers


def _parameters(fn: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError) as error:
        raise EvalFnError(
            f"The signature of eval function {name} cannot be read ({error}); wrap it in a def."
        ) from error


def _mode(parameters: Sequence[inspect.Parameter], name: str) -> EvalMode:
    expected = "name it solution_str, for the last answer, messages, for the conversation, or result, for all of it"
    if not parameters:
        raise EvalFnError(f"Eval function {name} has no parameters; the first one is required: {expected}.")
    mode = _MODES.get(parameters[0].name)
    if mode is None:
        raise EvalFnError(f"The first parameter of eval function {name} is {parameters[0].name!r}; {expected}.")
    return mode


def _accepted(parameters: Sequence[inspect.Parameter], mode: EvalMode, name: str) -> list[str]:
    by_name = {parameter.name: parameter for parameter in parameters}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    offered = [*_OFFERED[mode], *(extra for extra in _OFFERED_ON_REQUEST[mode] if extra in by_name)]
    for parameter in parameters:
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise EvalFnError(
                f"Parameter {parameter.name!r} of eval function {name} is positional-only, but arguments are passed by "
                "name; remove the '/'."
            )
        is_optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if parameter.name not in offered and not is_optional:
            raise EvalFnError(
                f"Eval function {name} needs the argument {parameter.name!r}, but is given {', '.join(offered)}; give "
                "the parameter a default."
            )
    return [parameter for parameter in offered if takes_any or parameter in by_name]


def _is_coroutine_function(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004 - it is looked at, not whether it is there


def _contained(call: Callable[[], Any], name: str) -> Any:
    try:
        return call()
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, StopIteration):  # which a future cannot carry
            raise
        raise _ended(name, error) from error


def _ended(name: str, error: BaseException) -> EvalFnError:
    return EvalFnError(f"{name} ended with {type(error).__name__}: {error}.")


def described(error: Exception) -> str:
    """``ValueError: text``, fit for one line of a terminal."""
    return told(error, shortened(text_of(error), MAX_ERROR_CHARACTERS))
