"""Listening sockets, bound before anything is announced."""

import socket

BACKLOG = 4096


def listen(host: str, port: int) -> socket.socket:
    """A TCP socket that listens on ``host``; port 0 takes any free one.

    Raises:
        OSError: the address cannot be resolved or bound; ``strerror`` says why.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    # Accepted connections inherit it. asyncio would set it itself, but not on sockets made with protocol 0, as here;
    # without it a reply of two packets waits some 40 ms for the peer's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
