"""Where in the author's own code something went wrong.

What is told here goes to trainers, traces and terminals: files below the working folder by their path in it, any other
by its name; lines and functions, never a line of code nor a value. All of it is total and bounded: a place that cannot
be told is left out.
"""

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.consts import PACKAGE_FOLDER
from osmosis_ai.rollout.core.text import printable

if TYPE_CHECKING:
    import asyncio

MAX_PLACES = 6
MAX_PLACE_CHARACTERS = 200
_MAX_CHAIN = 20
_MAX_FRAMES = 2_000

_FOREIGN_FOLDERS = tuple(
    str(path)
    for path in (PACKAGE_FOLDER, *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")))
)
_PACKAGES = ("/site-packages/", "/dist-packages/", "\\site-packages\\")


def is_foreign(file: str) -> bool:
    """Whether ``file`` is none of the author's: this SDK's, the standard library's, an installed package's."""
    if file.startswith("<") or any(part in file for part in _PACKAGES):
        return True
    return any(file.startswith(folder) and file[len(folder) : len(folder) + 1] in "/\\" for folder in _FOREIGN_FOLDERS)


def in_folder(file: str) -> str | None:
    """The path of ``file`` in the working folder; ``None`` where it lies elsewhere."""
    with suppress(ValueError, OSError):
        return str(Path(file).relative_to(Path.cwd()))
    return None


def places_of(error: BaseException) -> list[str]:
    """``agent.py:31 in SqlAgent.run`` for each frame of the author's own code, the innermost first.

    A cause comes before what was raised from it. At most ``MAX_PLACES``; of a group, its first error.
    """
    places: dict[str, None] = {}
    for each in reversed(list(chain_of(error))):
        if isinstance(each, SyntaxError) and each.filename and not is_foreign(each.filename):
            places[f"{_shown(each.filename)}:{each.lineno}"] = None
        frames = traceback.walk_tb(each.__traceback__)
        own = [
            (frame.f_code, line)
            for (frame, line), _ in zip(frames, range(_MAX_FRAMES), strict=False)
            if not is_foreign(frame.f_code.co_filename)
        ]
        places.update((place_at(code, line), None) for code, line in reversed(own))
    return list(places)[:MAX_PLACES]


def place_of(error: BaseException) -> str | None:
    """The innermost of ``places_of``."""
    return next(iter(places_of(error)), None)


def places_of_task(task: "asyncio.Task[Any]") -> list[str]:
    """As ``places_of``, for where a task waits: the author's frames of the coroutines that it awaits."""
    places: list[str] = []
    waiting: Any = task.get_coro()
    for _ in range(_MAX_FRAMES):
        frame = next((f for name in ("cr_frame", "gi_frame", "ag_frame") if (f := getattr(waiting, name, None))), None)
        if frame is None:
            break
        if not is_foreign(frame.f_code.co_filename):
            places.append(place_at(frame.f_code, frame.f_lineno))
        waiting = next(
            (w for name in ("cr_await", "gi_yieldfrom", "ag_await") if (w := getattr(waiting, name, None))), None
        )
    return list(reversed(places))[:MAX_PLACES]


def place_of_function(function: Any) -> str | None:
    """Where a function or method is written."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return place_at(code, code.co_firstlineno) if isinstance(code, CodeType) else None


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it came of, from the outside in: causes, contexts not suppressed, the first of a group."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen and len(seen) < _MAX_CHAIN:
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            each = each.exceptions[0]
        else:
            each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


def place_at(code: CodeType, line: int | None) -> str:
    """``agent.py:31 in SqlAgent.run``."""
    return printable(f"{_shown(code.co_filename)}:{line} in {code.co_qualname}")[:MAX_PLACE_CHARACTERS]


def _shown(file: str) -> str:
    return in_folder(file) or Path(file).name
