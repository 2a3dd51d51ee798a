"""uvicorn, bounded: what a peer may cost a server of ours before its request is whole.

A request head has at most ``MAX_HEAD_BYTES`` (one read more, while it is not whole), ``MAX_HEADERS`` and
``HEAD_SECONDS``, all unfinished heads together ``UNFINISHED_HEADS_BYTES``, and at most ``MAX_PIPELINED`` requests wait
for a reply before theirs; a reply that nobody reads is given up after ``UNREAD_SECONDS``. How long a body may take is
for who reads it; one that is still on its way when its reply has gone has ``HEAD_SECONDS`` more. ``bounded`` and
``bounded_httptools`` see to sizes, ``waiting`` to times and numbers.
"""

import logging
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.shortage import descriptor_limit
from osmosis_ai.rollout.wire.bounded import Bounded, BoundedH11
from osmosis_ai.rollout.wire.bounded_httptools import BoundedHttptools
from osmosis_ai.rollout.wire.waiting import Inbound

if TYPE_CHECKING:
    import uvicorn

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 4096
MIN_CONNECTIONS = 16
OWN_DESCRIPTORS = 64
"""Journal, traces, listeners, event loop, what the interpreter opens."""


def connection_limit(outbound: int) -> int:
    """How many connections a server may hold in a process that opens up to ``outbound`` of its own."""
    usable = descriptor_limit() - OWN_DESCRIPTORS
    return max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, max(usable // 4, usable - outbound)))


def bound(config: "uvicorn.Config", max_connections: int) -> None:
    """Bound the connections that a server of ``config`` accepts from now on."""
    if not config.loaded:
        config.load()
    protocol: Any = config.http_protocol_class
    guard = _guard_of(protocol)
    if guard is None:
        logger.warning("%s is not known here: what a request's head may cost is not bounded.", protocol.__name__)
        return
    members = {"inbound": Inbound(max_connections, config.timeout_keep_alive)}
    config.http_protocol_class = type(f"Bounded{protocol.__name__}", (guard, protocol), members)


def bound_this_server(outbound: int) -> bool:
    """Bound the uvicorn whose lifespan is starting in this process, however it was started; whether one was found.

    Args:
        outbound: how many descriptors are to be left for connections of the server's own, and its agent's files.
    """
    import uvicorn

    # No app is told of its server; but uvicorn's is who gets the signals of a process, before any lifespan begins.
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not isinstance(server, uvicorn.Server):
        return False
    bound(server.config, connection_limit(outbound))
    return True


def has_whole_body(receive: Any) -> bool:
    """Whether ``receive`` is uvicorn's, and gives at once all that is to come of the body."""
    cycle: Any = getattr(receive, "__self__", None)
    return getattr(cycle, "more_body", True) is False and cycle.message_event.is_set()


async def received(receive: Any) -> Mapping[str, Any]:
    """The next that ``receive`` gives of a body, of which more is to come.

    A body that had come to its end counts though its sender has hung up since; uvicorn gives nothing then.
    """
    message: Mapping[str, Any] = await receive()
    cycle: Any = getattr(receive, "__self__", None)
    if message["type"] == "http.disconnect" and getattr(cycle, "more_body", True) is False:
        return {"type": "http.request", "body": bytes(cycle.body)}
    return message


def _guard_of(protocol: type) -> "type[Bounded] | None":
    guards = {"httptools_impl.HttpToolsProtocol": BoundedHttptools, "h11_impl.H11Protocol": BoundedH11}
    for name, guard in guards.items():
        module, _, kind = f"uvicorn.protocols.http.{name}".rpartition(".")
        # Whoever has a class of it has it loaded.
        if module in sys.modules and issubclass(protocol, getattr(sys.modules[module], kind)):
            return guard
    return None
