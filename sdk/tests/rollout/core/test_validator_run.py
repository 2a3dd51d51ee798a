"""What the validator says of an agent loop's run."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
from support.validation import Loop, found, validate


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def awaiting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


async def coroutine_function(ctx: Any) -> Any: ...


def plain_function(ctx: Any) -> Any: ...


async def async_generator(ctx: Any) -> Any:
    yield ctx


class AsyncCallable:
    async def __call__(self, ctx: Any) -> Any: ...


class SyncCallable:
    def __call__(self, ctx: Any) -> Any: ...


class TestRun:
    @pytest.mark.parametrize(
        "run",
        [
            coroutine_function,
            functools.partial(coroutine_function),
            functools.partial(functools.partial(AsyncCallable())),
            decorated(coroutine_function),
            decorated(decorated(coroutine_function)),
            functools.partial(decorated(coroutine_function)),
            awaiting(plain_function),
            AsyncCallable(),
        ],
    )
    def test_may_be_any_kind_of_coroutine_function(self, run: Any) -> None:
        loop = Loop()
        loop.run = run  # type: ignore[method-assign]  # instances may carry their own
        assert validate(loop).valid

    @pytest.mark.parametrize(
        ("run", "code"),
        [
            (None, "MISSING_RUN_METHOD"),
            ("run", "RUN_NOT_CALLABLE"),
            (plain_function, "RUN_NOT_ASYNC"),
            (decorated(plain_function), "RUN_NOT_ASYNC"),
            (functools.partial(plain_function), "RUN_NOT_ASYNC"),
            (SyncCallable(), "RUN_NOT_ASYNC"),
            (AsyncCallable, "RUN_NOT_ASYNC"),
            (async_generator, "RUN_NOT_ASYNC"),
        ],
    )
    def test_may_not_be_anything_else(self, run: Any, code: str) -> None:
        loop = Loop()
        loop.run = run  # type: ignore[method-assign]  # instances may carry their own
        assert found(validate(loop).errors) == [(code, "run")]

    def test_a_function_that_wraps_itself_ends_the_search(self) -> None:
        def endless(ctx: Any) -> Any: ...

        endless.__wrapped__ = endless  # type: ignore[attr-defined]  # what a careless decorator leaves behind
        loop = Loop()
        loop.run = endless  # type: ignore[method-assign]  # instances may carry their own
        assert found(validate(loop).errors) == [("RUN_NOT_ASYNC", "run")]
