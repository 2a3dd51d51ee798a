"""A TCP proxy as the network in between, which can be cut: silently, as a partition, or with resets."""

import selectors
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65536


class Partition:
    """Passes bytes between ``port`` and the port ``to`` of this machine; from entry to exit of its block."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._whole = threading.Event()
        self._whole.set()
        self._replies_pass = threading.Event()
        self._replies_pass.set()
        self._ended = False
        self._sockets: set[socket.socket] = set()
        self.on_bytes: threading.Event = threading.Event()
        """Set when bytes came to a proxy that is cut: somebody waits."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended = True
        self._listener.close()
        self.reset()
        self.mend()

    def cut(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self.on_bytes.clear()
        self._whole.clear()

    def cut_replies(self) -> None:
        """From now on what is asked arrives, and no answer returns."""
        self._replies_pass.clear()

    def mend(self) -> None:
        """All passes again, what was held back too."""
        self._replies_pass.set()
        self._whole.set()

    def reset(self) -> None:
        """Break all connections that there are."""
        for each in list(self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near:
            self._whole.wait()
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return
            with far, selectors.DefaultSelector() as selector:
                self._sockets |= {near, far}
                for each, other in ((near, far), (far, near)):
                    selector.register(each, selectors.EVENT_READ, other)
                with suppress(OSError):
                    self._pass_on(selector, far)
                self._sockets -= {near, far}

    def _pass_on(self, selector: selectors.BaseSelector, far: socket.socket) -> None:
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                if not (content := key.fileobj.recv(CHUNK_BYTES)):
                    return
                if not self._whole.is_set():
                    self.on_bytes.set()
                    self._whole.wait()
                if key.fileobj is far:
                    self._replies_pass.wait()
                key.data.sendall(content)
