"""The reward decorators, ``osmosis_reward`` and ``osmosis_rubric``.

A function whose first parameter is named ``solution_str`` is *classic*: its signature is checked when it is decorated,
its result when it is called. Every other callable, a method with ``self`` in front included, is only wrapped: nothing
about it is checked.
"""

import functools
import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, ForwardRef, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from osmosis_ai.rollout.core.grading import is_graded, while_grading
from osmosis_ai.rollout.core.reward_parts import split_reward

logger = logging.getLogger(__name__)

# The attribute that an exception of a decorated function carries: the function's name.
FAILED_REWARD_FUNCTION = "osmosis_reward_function"

RewardFunction = TypeVar("RewardFunction", bound=Callable[..., Any])


def osmosis_reward(func: RewardFunction) -> RewardFunction:
    """Mark ``func`` as a reward function; used bare, on a function or a coroutine function.

    Classic signature: ``(solution_str: str, ground_truth: str, extra_info: dict | None = None, ...) -> float``.
    Parameterised dicts, ``Annotated`` and postponed annotations are fine. Any default will do, but Python shares one
    such as ``{}`` between calls. Arguments are not checked at call time. A keyword argument ``data_source`` is dropped
    unless ``func`` can take it. Where its signature says ``-> float | None``, ``None`` stands for no reward. A score of
    NaN or infinity is passed on with a logged warning. A dict, ``{"reward": 0.75, "format": 1.0}``, is a score with the
    parts that it is made of.

    Raises:
        TypeError: when decorating, for a classic signature that differs; when called, for a classic result that is
            neither a ``float`` nor such a ``None``.
    """
    return _decorate(func, _reward_rules)


def osmosis_rubric(func: RewardFunction) -> RewardFunction:
    """Mark ``func`` as a rubric function; used bare, on a function or a coroutine function.

    Classic signature: ``(solution_str: str, ground_truth: str | None, extra_info, ...) -> float``, no defaults for the
    first two. Unlike ``osmosis_reward`` it checks the arguments of each call. ``data_source`` and non-finite scores
    are treated as ``osmosis_reward`` does.

    Raises:
        TypeError: when decorating, for a classic signature that differs; when called, for arguments that are missing
            or of the wrong type, and for a classic result that is no ``float``.
    """
    return _decorate(func, _rubric_rules, _check_rubric_arguments)


# Whether a rule holds, of which parameter it is, and what to say otherwise; the first that fails decides.
_Rules = tuple[tuple[bool, inspect.Parameter, str], ...]
_RulesOf = Callable[..., _Rules]


def _decorate(
    func: RewardFunction, rules: _RulesOf, check_arguments: Callable[..., None] | None = None
) -> RewardFunction:
    if not callable(func):
        raise TypeError(f"A reward decorator needs a function, got {type(func).__name__}; decorate a function.")
    name, signature = _name_of(func), inspect.signature(func)
    namespace = getattr(_plain_function(func), "__globals__", {})
    is_async = any(map(inspect.iscoroutinefunction, (func, _plain_function(func, unwrap=False))))
    is_classic = next(iter(signature.parameters), None) == "solution_str"
    takes_data_source = "data_source" in signature.parameters or any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()
    )
    may_be_none = NoneType in get_args(_bare(_resolve(signature.return_annotation, namespace)))
    if is_classic:
        _check_signature(name, signature, namespace, rules)

    def finish(score: Any) -> Any:
        if not is_classic:
            return score
        number, _ = split_reward(score)
        if not (number is None and may_be_none):
            _check_score(name, number)
        return score

    async def finish_later(score: Awaitable[Any]) -> Any:
        with _marking_failures(name), while_grading():
            return finish(await score)

    def call(*args: Any, **kwargs: Any) -> Any:
        if is_classic and not is_graded():
            return _ungraded_later(may_be_none) if is_async else _ungraded(may_be_none)
        with _marking_failures(name), while_grading():
            if not takes_data_source:
                kwargs.pop("data_source", None)
            if is_classic and check_arguments is not None:
                check_arguments(signature, args, kwargs)
            score = func(*args, **kwargs)
            return finish_later(score) if is_async or (is_classic and inspect.isawaitable(score)) else finish(score)

    async def call_async(*args: Any, **kwargs: Any) -> Any:
        return await call(*args, **kwargs)

    wrapper = functools.wraps(func)(call_async if is_async else call)
    if not hasattr(func, "__name__"):
        wrapper.__name__ = wrapper.__qualname__ = name
    return cast(RewardFunction, wrapper)


def _ungraded(may_be_none: bool) -> float | None:
    """In place of a score that nobody asked for: an agent may compute with it, and no result has it."""
    return None if may_be_none else math.nan


async def _ungraded_later(may_be_none: bool) -> float | None:
    return _ungraded(may_be_none)


@contextmanager
def _marking_failures(name: str) -> Iterator[None]:
    """Note on an exception which reward function raised it, so that the server can tell it from the agent's own."""
    try:
        yield
    except Exception as error:
        with suppress(AttributeError, TypeError):
            setattr(error, FAILED_REWARD_FUNCTION, name)
        raise


def _check_signature(name: str, signature: inspect.Signature, namespace: dict[str, Any], rules: _RulesOf) -> None:
    parameters = [
        parameter.replace(annotation=_resolve(parameter.annotation, namespace))
        for parameter in signature.parameters.values()
    ]
    if len(parameters) < 3:
        raise TypeError(
            f"Function {name} must have at least 3 parameters, got {len(parameters)};"
            " declare (solution_str, ground_truth, extra_info)."
        )
    for holds, parameter, message in rules(*parameters[:3]):
        if not holds:
            raise TypeError(f"Function {name}: {message}, got '{parameter}'.")


_RUBRIC_ARGUMENTS = {
    "solution_str": (str, "a string"),
    "ground_truth": (str | None, "a string or None"),
    "extra_info": (object, "anything"),
}


def _check_rubric_arguments(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    bound = signature.bind_partial(*args, **kwargs)
    bound.apply_defaults()
    for name, (kind, wanted) in _RUBRIC_ARGUMENTS.items():
        if name not in bound.arguments:
            raise TypeError(f"'{name}' argument is required")
        if not isinstance(value := bound.arguments[name], kind):
            raise TypeError(f"'{name}' must be {wanted}, got {type(value).__name__}")


def _check_score(name: str, score: Any) -> None:
    if not isinstance(score, float):
        raise TypeError(f"Function {name} must return a float, got {type(score).__name__}")
    if not math.isfinite(score):
        logger.warning("Function %s returned %s; a trainer cannot use a score that is not finite.", name, score)


def _plain_function(func: Any, *, unwrap: bool = True) -> Any:
    """The function behind partials, callable instances and, on request, decorators."""
    if isinstance(func, functools.partial):
        return _plain_function(func.func, unwrap=unwrap)
    if unwrap:
        func = inspect.unwrap(func)
    return func if hasattr(func, "__globals__") or isinstance(func, type) else type(func).__call__


def _name_of(func: Any) -> str:
    if isinstance(func, functools.partial):
        return _name_of(func.func)
    return str(getattr(func, "__name__", type(func).__name__))


def _resolve(annotation: Any, namespace: dict[str, Any]) -> Any:
    """``annotation`` without string forms; one that cannot be evaluated stays as written."""
    # One at a time, so that a name that exists only for the type checker does not spoil the other parameters.
    holder = SimpleNamespace(__annotations__={"parameter": annotation})
    with suppress(Exception):
        return get_type_hints(holder, namespace, include_extras=True)["parameter"]
    return annotation


def _is_str_annotation(annotation: Any) -> bool:
    """Whether ``annotation`` means ``str``: the type, a subclass, or a string form of either spelling."""
    if isinstance(annotation, type):
        return issubclass(annotation, str)
    text = annotation.__forward_arg__ if isinstance(annotation, ForwardRef) else annotation
    return isinstance(text, str) and text in ("str", "builtins.str")


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _only_member(annotation: Any) -> Any:
    """The one member of a union other than ``None``, or what is no union itself; ``None`` if there are several."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    members = [member for member in get_args(annotation) if member is not NoneType]
    return members[0] if len(members) == 1 else None


def _is_optional_dict(parameter: inspect.Parameter) -> bool:
    member = _bare(_only_member(_bare(parameter.annotation)))
    return dict in (member, get_origin(member))


def _reward_rules(first: inspect.Parameter, second: inspect.Parameter, third: inspect.Parameter) -> _Rules:
    return (
        (_bare(first.annotation) is str, first, "First parameter 'solution_str' must be annotated as str"),
        (second.name == "ground_truth", second, "Second parameter must be named 'ground_truth'"),
        (_bare(second.annotation) is str, second, "Second parameter 'ground_truth' must be annotated as str"),
        (third.name == "extra_info", third, "Third parameter must be named 'extra_info'"),
        (_is_optional_dict(third), third, "Third parameter 'extra_info' must be annotated as dict or dict | None"),
        (
            third.default is not third.empty,
            third,
            "Third parameter 'extra_info' must have a default value of None (or another default)",
        ),
    )


def _rubric_rules(first: inspect.Parameter, second: inspect.Parameter, third: inspect.Parameter) -> _Rules:
    is_text = _is_str_annotation(_only_member(second.annotation))
    return (
        (_is_str_annotation(first.annotation), first, "First parameter 'solution_str' must be annotated as str"),
        (first.default is first.empty, first, "First parameter 'solution_str' cannot have a default value"),
        (second.name == "ground_truth", second, "Second parameter must be named 'ground_truth'"),
        (is_text, second, "Second parameter 'ground_truth' must be annotated as str or Optional[str]"),
        (second.default is second.empty, second, "Second parameter 'ground_truth' cannot have a default value"),
        (third.name == "extra_info", third, "Third parameter must be named 'extra_info'"),
    )
