"""Evidence that several checks need at once, in several threads: gathered by the first, awaited by the others."""

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Owner = TypeVar("Owner")
Value = TypeVar("Value")


class shared(Generic[Owner, Value]):  # noqa: N801 - used as a decorator, like property
    """As ``functools.cached_property``, and computed once even if several threads ask."""

    def __init__(self, compute: Callable[[Owner], Value]) -> None:
        self.__doc__ = compute.__doc__
        self._compute = compute
        self._name = compute.__name__
        self._lock_of_owner = threading.Lock()

    @overload
    def __get__(self, owner: None, kind: Any = None) -> "shared[Owner, Value]": ...
    @overload
    def __get__(self, owner: Owner, kind: Any = None) -> Value: ...
    def __get__(self, owner: Owner | None, kind: Any = None) -> "shared[Owner, Value] | Value":
        if owner is None:
            return self
        attributes: dict[str, Any] = vars(owner)
        with self._lock_of_owner:
            lock: threading.Lock = attributes.setdefault(f"_lock_of_{self._name}", threading.Lock())
        with lock:
            if self._name not in attributes:
                attributes[self._name] = self._compute(owner)
            value: Value = attributes[self._name]
            return value
