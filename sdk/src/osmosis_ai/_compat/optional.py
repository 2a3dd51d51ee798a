"""Optional dependencies of the 0.2 line: whether they are installed, and the modules, or ``None``, on first use."""

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


def _is_installed(module_name: str) -> bool:
    try:
        return find_spec(module_name) is not None
    except ValueError:  # already imported, by something that gave it no spec
        return True


FASTAPI_AVAILABLE, UVICORN_AVAILABLE, PYDANTIC_SETTINGS_AVAILABLE = map(_is_installed, _LAZY_MODULES)


def import_optional(module_name: str, package_name: str | None = None) -> tuple[ModuleType | None, bool]:
    """The module and ``True``, or ``None`` and ``False`` where its import raises ``ImportError``."""
    try:
        return import_module(module_name), True
    except ImportError as error:
        logger.debug("%s is not available: %s", package_name or module_name, error)
        return None, False


def require_optional(
    module_name: str, package_name: str | None = None, feature_name: str = "", install_extra: str | None = None
) -> ModuleType:
    """The module; an ``ImportError`` names what needs it, the package, and the extra (or package) to install."""
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
