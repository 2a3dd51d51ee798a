"""The server, started once more after its end."""

import contextlib
import os
from typing import TYPE_CHECKING

from rollout_conformance.options import RUN_VARIABLE, SHORT_RUN_SECONDS
from rollout_conformance.vocabulary import ConformanceError, Failed

if TYPE_CHECKING:
    from rollout_conformance.server_command import ServerCommand


async def start_again(command: "ServerCommand", after: str) -> None:
    """Start the server once more.

    Raises:
        Failed: it does not start.
    """
    try:
        await command.start()
    except ConformanceError as error:
        usually = "what the process before has left, such as half of a last line, or a lock, is not coped with"
        raise Failed(f"a server that can be started again after {after}", str(error), usually=usually) from None


async def start_with_short_limit(command: "ServerCommand", after: str) -> bool:
    """Start it once more: whether that is with ``SHORT_RUN_SECONDS``, which a server may refuse."""
    if RUN_VARIABLE not in os.environ:
        with contextlib.suppress(ConformanceError):
            await command.start({RUN_VARIABLE: f"{SHORT_RUN_SECONDS:g}"})
            return True
    await start_again(command, after)
    return False
