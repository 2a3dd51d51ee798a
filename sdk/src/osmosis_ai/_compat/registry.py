"""The registry of agent loops, by name.

A loop is kept under the name it has when it is registered; renaming it later changes nothing here. Every method may be
called from any thread.
"""

import threading
from typing import Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.exceptions import AgentLoopNotFoundError


class AgentLoopRegistry:
    """Agent loops by name, in order of registration."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loops: dict[str, RolloutAgentLoop] = {}

    def register(self, loop: RolloutAgentLoop) -> None:
        """Keep ``loop`` under ``loop.name``.

        Raises:
            TypeError: if ``loop`` is no instance of ``RolloutAgentLoop``, or its name is no string.
            ValueError: if the name is blank or taken, even by the same object.
        """
        name = _name_of(loop)
        with self._lock:  # two steps; everything else here is one, which threads cannot come between
            holder = self._loops.get(name)
            if holder is None:
                self._loops[name] = loop
                return
        raise ValueError(
            f"Agent loop '{name}' is already registered by {_class_of(holder)}, so {_class_of(loop)} cannot take the"
            " name; rename one of them or unregister the first."
        )

    def unregister(self, name: str) -> bool:
        """Forget ``name``; ``False`` if it was unknown."""
        return self._loops.pop(name, None) is not None

    def get(self, name: str) -> RolloutAgentLoop | None:
        """The loop registered under ``name``, or ``None``."""
        return self._loops.get(name)

    def list_names(self) -> list[str]:
        """The names, in order of registration."""
        return list(self._loops)

    def clear(self) -> None:
        """Forget every loop."""
        self._loops.clear()


def _name_of(loop: Any) -> str:
    if isinstance(loop, type):
        raise TypeError(f"Cannot register the class {loop.__name__}; register an instance, {loop.__name__}().")
    if not isinstance(loop, RolloutAgentLoop):
        raise TypeError(
            f"Cannot register a {type(loop).__name__}; register an instance of a RolloutAgentLoop subclass."
        )
    name: Any = loop.name
    if not isinstance(name, str):
        raise TypeError(
            f"The name of {_class_of(loop)} must be a string, got {type(name).__name__}; set 'name' to one."
        )
    if not name.strip():
        raise ValueError(f"The name of {_class_of(loop)} is blank; set 'name' to a string that is not.")
    return name


def _class_of(loop: RolloutAgentLoop) -> str:
    return f"{type(loop).__module__}.{type(loop).__qualname__}"


_REGISTRY = AgentLoopRegistry()


def register_agent_loop(loop: RolloutAgentLoop) -> None:
    """Keep ``loop`` under ``loop.name`` for the whole process; errors as ``AgentLoopRegistry.register``."""
    _REGISTRY.register(loop)


def unregister_agent_loop(name: str) -> bool:
    """Forget ``name``; ``False`` if it was unknown."""
    return _REGISTRY.unregister(name)


def get_agent_loop(name: str) -> RolloutAgentLoop:
    """The loop registered under ``name``.

    Raises:
        AgentLoopNotFoundError: if there is none; ``available`` lists the names there are.
    """
    loop = _REGISTRY.get(name)
    if loop is None:
        raise AgentLoopNotFoundError(name, _REGISTRY.list_names())
    return loop


def list_agent_loops() -> list[str]:
    """The registered names, in order of registration."""
    return _REGISTRY.list_names()
