"""The ``.env`` file of the program: the nearest one at or above the current directory; the environment wins."""

import os
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
