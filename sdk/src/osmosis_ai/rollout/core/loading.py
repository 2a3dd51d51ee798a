"""Loads what a user names as ``module:attribute``.

Whatever goes wrong in the user's module becomes a `CLIError` of one sentence with the place, and keeps the original
exception as its cause; only ``KeyboardInterrupt`` passes.
"""

import importlib
import sys
import sysconfig
import traceback
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.text import UNREADABLE, described, fitted, text_of
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.base import RolloutAgentLoop

__all__ = ["CLIError", "load_agent_loop"]

EXPECTED_FORMAT = "Expected format: 'module.path:attribute_name'"
MAX_REASON_LENGTH = 300
MAX_LISTED_ATTRIBUTES = 30

# The innermost frame outside these is the user's code: the place to name.
_FOREIGN_DIRECTORIES = (
    Path(__file__).parents[1],
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
)
_IMPORT_MACHINERY = (__file__, importlib.__file__)


def load_agent_loop(module_path: str) -> "RolloutAgentLoop":
    """Import the agent loop that ``module_path`` (``module:attribute``) names.

    The attribute is an instance, or a subclass that can be called without arguments.

    Raises:
        CLIError: as `import_module_attribute`, or because the attribute is no agent loop or cannot be instantiated.
    """
    value, name = import_module_attribute(module_path), module_path.rpartition(":")[2]
    from osmosis_ai.rollout.core.base import RolloutAgentLoop

    if isinstance(value, type):
        if not issubclass(value, RolloutAgentLoop):
            raise CLIError(
                f"{module_path!r} names the class '{name}', which is not a RolloutAgentLoop subclass; "
                "name an agent loop."
            )
        value = _instantiate(value, name)
    if not isinstance(value, RolloutAgentLoop):
        raise CLIError(
            f"'{name}' must be a RolloutAgentLoop instance or subclass, got {type(value).__name__}; name an agent loop."
        )
    return value


def import_module_attribute(path: str) -> Any:
    """Import ``path`` (``module:attribute``, split at the last colon) from the working directory or the Python path.

    The working directory is put first on ``sys.path`` unless it is there already, and stays.

    Raises:
        CLIError: for a malformed path, any failure of the import, or a missing attribute.
    """
    module_name, attribute = _split(path)
    _put_working_directory_on_path()
    importlib.invalidate_caches()
    module = _import(module_name)
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise CLIError(_missing_attribute(module, attribute)) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise CLIError(f"Cannot load '{attribute}' from module '{module_name}': {_reason(error)}") from error


def _split(path: str) -> tuple[str, str]:
    module_name, colon, attribute = path.rpartition(":")
    problems = {
        "it has no ':'": not colon,
        "the module name is empty": not module_name.strip(),
        "the attribute name is empty": not attribute.strip(),
        "name a module, not a file": "/" in module_name or "\\" in module_name,
        "a relative module name cannot be imported": module_name.startswith("."),
    }
    for problem, is_so in problems.items():
        if is_so:
            raise UsageError(f"Invalid module path {path!r}: {problem}. {EXPECTED_FORMAT}")
    return module_name, attribute


def _put_working_directory_on_path() -> None:
    try:
        working_directory = str(Path.cwd())
    except OSError as error:
        raise CLIError("The working directory no longer exists; change to another one.") from error
    if working_directory not in sys.path:
        sys.path.insert(0, working_directory)


def _import(module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise CLIError(f"Cannot import module '{module_name}': {_import_reason(error, module_name)}") from error


def _import_reason(error: BaseException, module_name: str) -> str:
    place = _place(error)
    if isinstance(error, ModuleNotFoundError) and place is None:
        without_suffix = module_name.removesuffix(".py")
        advice = "run from the folder that holds it"
        if without_suffix != module_name:
            advice = f"write '{without_suffix}', without the suffix"
        return f"{_text(error)}; {advice}"
    if isinstance(error, ModuleNotFoundError):
        return f"{_text(error)} ({place}); install it, or correct the import"
    if isinstance(error, ImportError):
        return f"{_text(error)} ({place})" if place else _text(error)
    if isinstance(error, SystemExit):
        return f"it exits on import, with code {error.code!r} ({place}); move that under if __name__ == '__main__'"
    return _reason(error)


def _reason(error: BaseException) -> str:
    """``ValueError: text (file, line n)``, in one line."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno and Path(error.filename).is_file():
        return f"{type(error).__name__}: {_short_line(error.msg)} ({_shown(error.filename)}, line {error.lineno})"
    reason = described(error, _text(error))
    place = _place(error)
    return f"{reason} ({place})" if place else reason


def _place(error: BaseException) -> str | None:
    """Where the user's code was when ``error`` arose; ``None`` if no module's code was running."""
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename not in _IMPORT_MACHINERY
        and not frame.f_code.co_filename.startswith("<frozen importlib")
    ]
    if not frames:
        return None
    own = [(file, line) for file, line in frames if not _is_foreign(file)]
    file, line = (own or frames)[-1]
    return f"{_shown(file)}, line {line}"


def _is_foreign(file: str) -> bool:
    return file.startswith("<frozen ") or any(Path(file).is_relative_to(place) for place in _FOREIGN_DIRECTORIES)


def _shown(file: str) -> str:
    with suppress(ValueError, OSError):
        return str(Path(file).relative_to(Path.cwd()))
    return file


def _text(error: BaseException) -> str:
    return _short_line(text_of(error, UNREADABLE))


def _short_line(text: str) -> str:
    return fitted(" ".join(text.split()), MAX_REASON_LENGTH)


def _missing_attribute(module: ModuleType, attribute: str) -> str:
    names = sorted(name for name in dir(module) if not name.startswith("_"))
    close = get_close_matches(attribute, names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else "."
    file = getattr(module, "__file__", None)
    where = f" ({_shown(file)})" if file else ""
    listed = ", ".join(names[:MAX_LISTED_ATTRIBUTES]) or "none"
    unlisted = len(names) - MAX_LISTED_ATTRIBUTES
    more = f" and {unlisted} more" if unlisted > 0 else ""
    return (
        f"Module '{module.__name__}'{where} has no attribute '{attribute}'{hint} Available attributes: {listed}{more}"
    )


def _instantiate(agent_class: "type[RolloutAgentLoop]", name: str) -> "RolloutAgentLoop":
    try:
        return agent_class()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise CLIError(f"Cannot instantiate '{name}': {_reason(error)}") from error
