"""Exports that import their module on first use, so that a bare import stays quick and offline (PEP 562)."""

from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


def lazy_exports(
    package: ModuleType, exports: Mapping[str, str]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__all__``, ``__getattr__`` and ``__dir__`` for ``package``.

    ``exports`` maps a module to the names taken from it, with spaces between. A name is resolved once and then kept on
    the package, so it is the identical object everywhere. A submodule is there without an import of its own (``import
    osmosis_ai.rollout`` is enough for ``osmosis_ai.rollout.core``). Any other name raises ``AttributeError``.
    """
    home_of = {name: module for module, names in exports.items() for name in names.split()}

    def resolve(name: str) -> Any:
        from importlib.util import find_spec

        if name in home_of:
            value = getattr(import_module(home_of[name]), name)
        elif not name.startswith("_") and find_spec(submodule := f"{package.__name__}.{name}") is not None:
            value = import_module(submodule)
        else:
            raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}")
        setattr(package, name, value)
        return value

    def listing() -> list[str]:
        return sorted({*vars(package), *home_of})

    return list(home_of), resolve, listing
