"""The ``.env`` file of the program: the nearest one at or above the current directory; the environment wins.

A program that is no command of ours keeps its environment as it is: there the file in the current directory counts, as
for the settings.
"""

import os
from contextlib import suppress
from pathlib import Path

from osmosis_ai.rollout.core.consts import NO_DOTENV_VARIABLE
from osmosis_ai.rollout.core.user_errors import CLIError


def nearest_dotenv() -> Path | None:
    """The nearest ``.env`` at or above the current directory; ``None``: there is none, or no such directory."""
    try:
        here = Path.cwd()
    except OSError:
        return None
    return next((file for folder in (here, *here.parents) if (file := folder / ".env").is_file()), None)


def load_dotenv() -> None:
    """Load the nearest ``.env``, if it is the user's own and ``OSMOSIS_NO_DOTENV`` is not set.

    Raises:
        CLIError: it cannot be read.
    """
    if os.environ.get(NO_DOTENV_VARIABLE):
        return
    file = nearest_dotenv()
    if file is None or (hasattr(os, "getuid") and file.stat().st_uid != os.getuid()):
        return
    import dotenv

    try:
        dotenv.load_dotenv(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text, or holds a NUL"
        raise CLIError(f"{file} cannot be read ({reason}): correct it, or set {NO_DOTENV_VARIABLE}=1.") from error


def variable(name: str) -> str | None:
    """What the environment or, failing that, ``.env`` in the current directory says; nothing is as good as empty."""
    if (value := os.environ.get(name)) or os.environ.get(NO_DOTENV_VARIABLE):
        return value or None
    import dotenv

    with suppress(OSError, ValueError):  # which the settings tell
        return dotenv.dotenv_values(".env").get(name) or None
    return None
