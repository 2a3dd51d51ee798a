"""Serving the viewer until Ctrl-C."""

import socket
from collections.abc import Callable

from osmosis_ai.rollout.observe.traces.index import TraceIndex
from osmosis_ai.rollout.wire.inbound import bound, connection_limit

HOST = "127.0.0.1"
MAX_OWN_FILES = 64


def serve_viewer(index: TraceIndex, port: int, tell: Callable[[str], None]) -> None:
    """Serve ``index`` on the loopback interface; ``port`` 0 takes a free one. ``tell`` gets the URL once it is served.

    Raises:
        OSError: the port cannot be had.
        ImportError: the extra ``server`` is not installed.
    """
    import uvicorn

    from osmosis_ai.rollout.observe.traces.viewer.app import viewer_app

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        port = listener.getsockname()[1]
        listener.listen(64)
        config = uvicorn.Config(
            viewer_app(index), log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        bound(config, connection_limit(MAX_OWN_FILES))
        tell(f"http://{HOST}:{port}/")
        uvicorn.Server(config).run(sockets=[listener])
