"""Files that are there whole or not at all."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from osmosis_ai.rollout.core.user_errors import CLIError


def write_whole(path: Path, pieces: Iterable[str | bytes]) -> None:
    """Write ``pieces`` to ``path``, and its folder if that is missing; text is UTF-8, lone surrogates are escaped.

    The file has its name only once it is on disk; whatever goes wrong, what was there before stays.

    Raises:
        CLIError: the disk does not take it.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            for piece in pieces:
                file.write(piece if isinstance(piece, bytes) else piece.encode("utf-8", "backslashreplace"))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise CLIError(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            part.unlink()
