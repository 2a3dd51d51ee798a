"""Exports that import their module on first use, so that a bare import stays quick and offline (PEP 562)."""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


def lazy_exports(
    package: ModuleType, exports: Mapping[str, Iterable[str]]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__all__``, ``__getattr__`` and ``__dir__`` for ``package``.

    ``exports`` maps a module name, relative to ``package``, to the names taken from it. A name is resolved once
    and then kept on the package, so it is the identical object everywhere; so is a submodule that holds exports
    (``import osmosis_ai.rollout`` is enough for ``osmosis_ai.rollout.client``). Any other raises ``AttributeError``.
    """
    home_of = {name: module for module, names in exports.items() for name in names}
    submodules = {module.partition(".")[0] for module in exports}

    def resolve(name: str) -> Any:
        if name in submodules:
            return import_module("." + name, package.__name__)
        if name not in home_of:
            raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}")
        value = getattr(import_module("." + home_of[name], package.__name__), name)
        setattr(package, name, value)
        return value

    def listing() -> list[str]:
        return sorted({*vars(package), *home_of, *submodules})

    return list(home_of), resolve, listing
