"""Serving the viewer until Ctrl-C."""

import gc
import socket
from collections.abc import Callable

from osmosis_ai.rollout.observe.traces.index import TraceIndex
from osmosis_ai.rollout.wire.inbound import bound, connection_limit

HOST = "127.0.0.1"
MAX_OWN_FILES = 64
_PORT = "port"
_ALLOCATIONS = 100_000
"""How many before garbage is looked for: what an index is made of lives as long as it, and is all walked through."""


def serve_viewer(index: TraceIndex, port: int, tell: Callable[[str], None]) -> None:
    """Serve ``index`` on the loopback interface. ``tell`` gets the URL once it is served.

    ``port`` 0 takes that of the last time, so that links into the page go on to work, or else any that is free.

    Raises:
        OSError: the port cannot be had.
        ImportError: the extra ``server`` is not installed.
    """
    import uvicorn

    from osmosis_ai.rollout.observe.traces.viewer.app import viewer_app

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(listener, port, index)
        port = listener.getsockname()[1]
        listener.listen(64)
        if index.store is not None:
            index.store.keep_note(_PORT, str(port))
        config = uvicorn.Config(
            viewer_app(index),
            lifespan="on",
            ws="none",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        bound(config, connection_limit(MAX_OWN_FILES))
        gc.set_threshold(_ALLOCATIONS)
        tell(f"http://{HOST}:{port}/")
        uvicorn.Server(config).run(sockets=[listener])


def _bind(listener: socket.socket, port: int, index: TraceIndex) -> None:
    kept = index.store.note(_PORT) if index.store is not None and port == 0 else None
    if kept is not None and kept.isdecimal() and len(kept) < 6 and 1024 <= int(kept) <= 65535:
        try:
            listener.bind((HOST, int(kept)))
            return
        except OSError:
            pass  # somebody else has it now
    listener.bind((HOST, port))
