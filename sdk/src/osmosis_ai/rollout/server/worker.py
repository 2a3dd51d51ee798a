"""One worker process of ``workers``.

``python -m osmosis_ai.rollout.server.worker LISTENER_FD SUPERVISOR_FD MEMORY_FD COUNT INDEX``
"""

import os
import socket
import sys

from osmosis_ai.rollout.server import siblings
from osmosis_ai.rollout.server.plan import Plan
from osmosis_ai.rollout.server.workers import end_with_supervisor


def main() -> None:
    """Serve on the inherited socket until SIGTERM, or until the supervisor is gone."""
    import uvicorn

    listener, alive_reader, memory, count, index = (int(argument) for argument in sys.argv[1:6])
    # First: loading the app may take long, and the supervisor may die meanwhile.
    end_with_supervisor(alive_reader)
    siblings.join(siblings.Siblings(memory, count, index))
    os.close(memory)
    plan = Plan.from_environment()
    with socket.socket(fileno=listener) as bound:
        uvicorn.Server(uvicorn.Config(plan.app(), **plan.options)).run(sockets=[bound])


if __name__ == "__main__":
    main()
