"""Loads what a user names as ``module:attribute``.

Whatever goes wrong in the user's module becomes a `CLIError` of one sentence with the place, and keeps the original
exception as its cause; only ``KeyboardInterrupt`` passes.
"""

import importlib
import sys
import traceback
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.text import UNREADABLE, described, fitted, text_of
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError
from osmosis_ai.rollout.core.where import in_folder, is_foreign

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.base import RolloutAgentLoop

__all__ = ["CLIError", "load_agent_loop"]

EXPECTED_FORMAT = "Expected format: 'module.path:attribute_name'"
MAX_REASON_LENGTH = 300
MAX_LISTED_ATTRIBUTES = 30

_IMPORT_MACHINERY = (__file__, importlib.__file__)


def load_agent_loop(module_path: str) -> "RolloutAgentLoop":
    """Import the agent loop that ``module_path`` (``module:attribute``) names.

    The attribute is an instance, or a subclass that can be called without arguments.

    Raises:
        CLIError: as `import_module_attribute`, or because the attribute is no agent loop or cannot be instantiated.
    """
    from osmosis_ai.rollout.core.base import RolloutAgentLoop

    value, name = import_module_attribute(module_path, RolloutAgentLoop), module_path.rpartition(":")[2]

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


def import_module_attribute(path: str, wanted: type | None = None) -> Any:
    """Import ``path`` (``module:attribute``, split at the last colon) from the working directory or the Python path.

    The working directory is put first on ``sys.path`` unless it is there already, and stays. Where the attribute is not
    there, those that are named are of the class ``wanted``, or subclasses of it.

    Raises:
        CLIError: for a malformed path, any failure of the import, or a missing attribute.
    """
    module_name, attribute = split_name(path)
    _put_working_directory_on_path()
    importlib.invalidate_caches()
    module = _import(module_name)
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise CLIError(_missing_attribute(module, attribute, wanted)) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise CLIError(f"Cannot load '{attribute}' from module '{module_name}': {_reason(error)}") from error


def split_name(path: str) -> tuple[str, str]:
    """Module and attribute of ``module:attribute``.

    Raises:
        UsageError: ``path`` is not of that form.
    """
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
    except (KeyboardInterrupt, UsageError):  # a setting that cannot be used: the module is not to blame
        raise
    except BaseException as error:
        raise CLIError(f"Cannot import module '{module_name}': {_import_reason(error, module_name)}") from error


def _import_reason(error: BaseException, module_name: str) -> str:
    place = _place(error)
    if isinstance(error, ModuleNotFoundError) and place is None:
        return f"{_text(error)}; {_advice_for_missing(module_name, str(error.name))}"
    if isinstance(error, ModuleNotFoundError):
        close = get_close_matches(str(error.name), _modules_in(Path.cwd()), n=1)
        advice = f"did you mean '{close[0]}'?" if close else "install it, or correct the import"
        return f"{_text(error)} ({place}); {advice}"
    if isinstance(error, ImportError):
        remedy = f"; {_RELATIVE_REMEDY.format(Path.cwd().name, module_name)}" if "relative import" in str(error) else ""
        return (f"{_text(error)} ({place})" if place else _text(error)) + remedy
    if isinstance(error, SystemExit):
        return f"it exits on import, with code {error.code!r} ({place}); move that under if __name__ == '__main__'"
    return _reason(error)


_RELATIVE_REMEDY = "import without the dot, or go one folder up and name it '{}.{}'"


def _advice_for_missing(module_name: str, missing: str) -> str:
    """What to do where no module's code has run: ``missing`` is ``module_name``, or a package that it names."""
    without_suffix = module_name.removesuffix(".py")
    if without_suffix != module_name:
        return f"write '{without_suffix}', without the suffix"
    parent, _, last = missing.rpartition(".")
    folder = Path.cwd().joinpath(*filter(None, parent.split(".")))
    if close := get_close_matches(last, _modules_in(folder), n=1):
        return f"did you mean '{f'{parent}.' if parent else ''}{close[0]}{module_name[len(missing) :]}'?"
    if not parent and last in _modules_in(folder / "src"):
        return "it lies in src: set PYTHONPATH=src, or install the project (uv pip install -e .)"
    return "run from the folder that holds it"


def _modules_in(folder: Path) -> list[str]:
    with suppress(OSError):
        return sorted(
            entry.stem
            for entry in folder.iterdir()
            if entry.stem.isidentifier() and (entry.suffix == ".py" or any(entry.glob("*.py")))
        )
    return []


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
    own = [(file, line) for file, line in frames if not is_foreign(file)]
    file, line = (own or frames)[-1]
    return f"{_shown(file)}, line {line}"


def _shown(file: str) -> str:
    return in_folder(file) or file


def _text(error: BaseException) -> str:
    return _short_line(text_of(error, UNREADABLE))


def _short_line(text: str) -> str:
    return fitted(" ".join(text.split()), MAX_REASON_LENGTH)


def _missing_attribute(module: ModuleType, attribute: str, wanted: type | None) -> str:
    names = sorted(name for name in dir(module) if not name.startswith("_"))
    close = get_close_matches(attribute, names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else "."
    file = getattr(module, "__file__", None)
    where = f" ({_shown(file)})" if file else ""
    what = "attributes"
    if wanted is not None:
        what, names = "agent loops", [name for name in names if _is_one(getattr(module, name, None), wanted)]
    listed = ", ".join(names[:MAX_LISTED_ATTRIBUTES]) or "none"
    unlisted = len(names) - MAX_LISTED_ATTRIBUTES
    more = f" and {unlisted} more" if unlisted > 0 else ""
    return f"Module '{module.__name__}'{where} has no attribute '{attribute}'{hint} Available {what}: {listed}{more}"


def _is_one(value: Any, wanted: type) -> bool:
    if isinstance(value, type):
        return issubclass(value, wanted) and value is not wanted and not getattr(value, "__abstractmethods__", None)
    return isinstance(value, wanted)


def _instantiate(agent_class: "type[RolloutAgentLoop]", name: str) -> "RolloutAgentLoop":
    try:
        return agent_class()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise CLIError(f"Cannot instantiate '{name}': {_reason(error)}") from error
