"""Optional dependencies: whether they are installed, and the modules themselves.

Importing this module imports none of them: the flags look for the package without loading it, and ``fastapi``,
``uvicorn`` and ``pydantic_settings`` (module, or ``None`` when it cannot be imported) load on first use.
"""

import logging
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    fastapi: ModuleType | None
    uvicorn: ModuleType | None
    pydantic_settings: ModuleType | None

logger = logging.getLogger(__name__)

_LAZY_MODULES = ("fastapi", "uvicorn", "pydantic_settings")


def is_installed(module_name: str) -> bool:
    """Whether the top-level module ``module_name`` can be found; it is not imported."""
    try:
        return find_spec(module_name) is not None
    except ValueError:  # already imported, by something that gave it no spec
        return True


FASTAPI_AVAILABLE = is_installed("fastapi")
UVICORN_AVAILABLE = is_installed("uvicorn")
PYDANTIC_SETTINGS_AVAILABLE = is_installed("pydantic_settings")


def import_optional(module_name: str, package_name: str | None = None) -> tuple[ModuleType | None, bool]:
    """Import ``module_name`` if that is possible.

    Args:
        module_name: dotted name of the module.
        package_name: what to call it in the debug log; defaults to ``module_name``.

    Returns:
        The module and ``True``, or ``None`` and ``False`` when the import raises ``ImportError``.
    """
    try:
        return import_module(module_name), True
    except ImportError as error:
        logger.debug("%s is not available: %s", package_name or module_name, error)
        return None, False


def require_optional(
    module_name: str,
    package_name: str | None = None,
    feature_name: str = "",
    install_extra: str | None = None,
) -> ModuleType:
    """Import and return ``module_name``.

    Args:
        module_name: dotted name of the module.
        package_name: name of the package in the message; defaults to ``module_name``.
        feature_name: what needs it, for the message.
        install_extra: the extra of ``osmosis-ai`` that brings it; defaults to the package, then the module name.

    Raises:
        ImportError: naming the feature, the package and the ``pip install`` command.
    """
    try:
        return import_module(module_name)
    except ImportError as error:
        package = package_name or module_name
        purpose = f" for {feature_name}" if feature_name else ""
        extra = install_extra or package
        raise ImportError(
            f"{package} is required{purpose} ({error}); install it with: pip install osmosis-ai[{extra}]",
            name=module_name,
        ) from error


def __getattr__(name: str) -> ModuleType | None:
    if name not in _LAZY_MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _ = import_optional(name)
    globals()[name] = module
    return module
