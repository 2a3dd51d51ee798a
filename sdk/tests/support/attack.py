"""``python -m support.attack PORT COUNT``: connections that begin with a head and go on with a piece for ever.

In a process of its own, so that whoever asks the server meanwhile waits for the server alone. Head and piece are two
lines of hex on the standard input; without a piece nothing more is sent. Otherwise what the server closes is opened
anew.
"""

import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def attack(port: int, head: bytes, piece: bytes, count: int) -> Iterator[None]:
    """Under way from entry to exit."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(port), str(count)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
    )
    with process:
        try:
            assert process.stdin is not None
            process.stdin.write(f"{head.hex()}\n{piece.hex()}\n".encode())
            process.stdin.flush()
            yield
        finally:
            process.kill()


def main() -> None:
    port, count = int(sys.argv[1]), int(sys.argv[2])
    head, piece = (bytes.fromhex(sys.stdin.readline()) for _ in range(2))
    selector = selectors.DefaultSelector()
    open_ = 0
    wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if piece else 0)
    while True:
        with suppress(OSError):
            while open_ < count:
                connection = socket.create_connection(("127.0.0.1", port), timeout=1)
                connection.setblocking(False)
                selector.register(connection, wanted)
                open_ += 1
                connection.send(head)
        for key, events in selector.select(0.1):
            peer = key.fileobj
            assert isinstance(peer, socket.socket)
            try:
                if events & selectors.EVENT_WRITE:
                    peer.send(piece)
                if events & selectors.EVENT_READ and not peer.recv(65_536):
                    raise ConnectionResetError
            except BlockingIOError:
                continue
            except OSError:
                selector.unregister(peer)
                peer.close()
                open_ -= bool(piece)
        time.sleep(0.001)  # an attacker of another machine would not take this one's processors


if __name__ == "__main__":
    main()
