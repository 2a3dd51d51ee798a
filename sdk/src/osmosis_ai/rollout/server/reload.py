"""``--reload``: a supervisor process that starts the server anew whenever a Python file changes.

uvicorn restarts an app it can import, so the child process imports ``app`` here, which rebuilds the server from the
plan its parent left in the environment. A broken module ends that child with one sentence; the supervisor stays, and
the next change tries again.
"""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.server.plan import PLAN_VARIABLE, Plan

if TYPE_CHECKING:
    from fastapi import FastAPI


def run(plan: Plan, listener: socket.socket, options: dict[str, Any]) -> None:
    """Serve on ``listener`` until told to stop; ``options`` are uvicorn's."""
    import uvicorn
    from uvicorn.supervisors import ChangeReload

    os.environ[PLAN_VARIABLE] = plan.to_json()
    if plan.mcp_path is not None:
        options = {**options, "reload_dirs": [str(Path.cwd()), plan.mcp_path]}
    config = uvicorn.Config(f"{__name__}:app", factory=True, reload=True, **options)
    ChangeReload(config, target=uvicorn.Server(config).run, sockets=[listener]).run()


def app() -> "FastAPI":
    """The child's application."""
    return Plan.from_environment().app()
