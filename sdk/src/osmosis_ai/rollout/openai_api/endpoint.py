"""``ChatApi`` objects over HTTP on the loopback interface, each under an address and a key of its own.

One socket an event loop, there while anybody has an address. It is open to every program of this machine, so the host
and the key are looked at before a body is read, and all that is read is bounded in bytes and time. A server keeps a
descriptor for it (``keep_descriptor``), as whoever asks for an address cannot wait for one.
"""

import asyncio
import errno
import itertools
import re
import secrets
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import h11

from osmosis_ai.rollout.openai_api.answers import Answer, ApiError
from osmosis_ai.rollout.openai_api.chat_api import ChatApi

HOST = "127.0.0.1"
MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_CONNECTIONS = 1000
MAX_STRANGERS = 128
"""Connections that have shown no key yet; beyond it the one that has waited longest is closed."""
READ_BYTES = 64 * 1024
KEY_BYTES = 32
HEAD_SECONDS = 15.0
"""For a stranger to say what it wants."""
IDLE_SECONDS = 300.0
REQUEST_SECONDS = 60.0

_kept_socket: socket.socket | None = None

_TARGET = re.compile(r"/([0-9]{1,18})(/v1/[^?#]*)")


def keep_descriptor() -> None:
    """Keep a socket ready for when no other can be had; where there is none now, none is kept."""
    global _kept_socket
    if _kept_socket is None:
        with suppress(OSError):
            _kept_socket = socket.socket()


def _new_socket() -> socket.socket:
    global _kept_socket
    try:
        return socket.create_server((HOST, 0), backlog=512)
    except OSError as error:
        if _kept_socket is None or error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
    kept, _kept_socket = _kept_socket, None
    kept.bind((HOST, 0))
    kept.listen(512)
    return kept


@dataclass(frozen=True, slots=True)
class Address:
    """Where a ``ChatApi`` is served, and the key that it wants as a bearer token; a ``repr`` shows no key."""

    number: str
    base_url: str
    api_key: str

    def __repr__(self) -> str:
        return f"Address({self.base_url!r})"


class Endpoint:
    """The server of one event loop."""

    _of_loops: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, "Endpoint"]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._is_kept = _kept_socket is not None
        self._socket = _new_socket()
        # Inherited by what is accepted: without it a reply of two packets waits for the peer's acknowledgement.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = self._socket.getsockname()[1]
        self._hosts = {f"{name}:{self._port}".encode() for name in (HOST, "localhost")}
        self._numbers = itertools.count(1)
        self._served: dict[str, tuple[str, ChatApi]] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._strangers: dict[asyncio.Task[None], None] = {}
        self._server: asyncio.Server | None = None
        # The socket listens by now: what connects before the server accepts waits in its backlog.
        self._starting = asyncio.get_running_loop().create_task(self._start())

    @classmethod
    def open(cls, api: ChatApi) -> Address:
        """Serve ``api`` from now on, in the running event loop.

        Raises:
            OSError: there is no room for another socket.
        """
        loop = asyncio.get_running_loop()
        endpoint = cls._of_loops.get(loop)
        if endpoint is None:
            endpoint = cls._of_loops[loop] = cls()
        number, key = str(next(endpoint._numbers)), secrets.token_urlsafe(KEY_BYTES)
        endpoint._served[number] = key, api
        return Address(number, f"http://{HOST}:{endpoint._port}/{number}/v1", key)

    @classmethod
    def close(cls, address: Address) -> None:
        """Serve it no longer; the last one to go closes the socket."""
        loop = asyncio.get_running_loop()
        endpoint = cls._of_loops.get(loop)
        if endpoint is None:
            return
        endpoint._served.pop(address.number, None)
        if not endpoint._served:
            del cls._of_loops[loop]
            endpoint._stop()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._connected, sock=self._socket, limit=READ_BYTES)

    def _stop(self) -> None:
        self._starting.cancel()
        if self._server is not None:
            self._server.close()
        self._socket.close()
        if self._is_kept:
            keep_descriptor()
        for connection in self._connections:
            connection.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        self._strangers[task] = None
        if len(self._strangers) > MAX_STRANGERS:
            longest = next(iter(self._strangers))
            del self._strangers[longest]
            longest.cancel()
        try:
            await _Connection(self, reader, writer, lambda: self._strangers.pop(task, None)).serve()
        except TimeoutError:
            writer.transport.abort()  # closing would wait for a peer that does not read
        except (OSError, h11.RemoteProtocolError, asyncio.CancelledError):
            pass  # the peer went away, or speaks no HTTP; or this endpoint closes, or has enough of strangers
        finally:
            self._connections.discard(task)
            self._strangers.pop(task, None)
            writer.close()

    def admitted(self, request: h11.Request) -> tuple[ChatApi, str]:
        """Whose request it is, and its path.

        Raises:
            ApiError: it is nobody's.
        """
        headers = dict(request.headers)
        if headers.get(b"host") not in self._hosts:
            raise ApiError(HTTPStatus.MISDIRECTED_REQUEST, "wrong_host", "The Host header is not this endpoint's.")
        target = _TARGET.fullmatch(request.target.decode("ascii", "replace").partition("?")[0])
        key, api = self._served.get(target[1], (None, None)) if target else (None, None)
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        # An unknown address is answered as a wrong key is, after the same comparison.
        is_right = secrets.compare_digest(token.strip(), (key or secrets.token_urlsafe(KEY_BYTES)).encode())
        if target is None or api is None or not is_right or scheme.lower() != b"bearer":
            raise ApiError(
                HTTPStatus.UNAUTHORIZED,
                "unauthorized",
                "The address or the key is wrong, or its rollout has ended: take ctx.openai_base_url() and"
                " ctx.openai_api_key() of this rollout.",
            )
        return api, target[2]


class _Connection:
    def __init__(
        self,
        endpoint: Endpoint,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        admitted: Callable[[], object],
    ) -> None:
        self._endpoint = endpoint
        self._admitted = admitted
        self._patience_seconds = HEAD_SECONDS
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

    async def serve(self) -> None:
        while await self._exchange():
            self._http.start_next_cycle()

    async def _exchange(self) -> bool:
        """One request and its response; whether there may be another."""
        async with asyncio.timeout(self._patience_seconds):
            request = await self._event()
        if not isinstance(request, h11.Request):
            return False
        try:
            api, path = self._endpoint.admitted(request)
            self._patience_seconds = IDLE_SECONDS
            self._admitted()
            async with asyncio.timeout(REQUEST_SECONDS):
                body = await self._body(request)
        except ApiError as error:
            await self._send(error.answer(), is_last=True)
            return False
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in request.headers}
        answer = await self._unless_hung_up(api.answer(request.method.decode("ascii"), path, headers, body))
        if answer is None or self._reader.at_eof():
            api.lose()
            return False
        await self._send(answer)
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _unless_hung_up(self, answer: Coroutine[Any, Any, Answer]) -> Answer | None:
        """``answer``; ``None`` where the peer has gone before."""
        answering = asyncio.ensure_future(answer)
        reading = asyncio.ensure_future(self._reader.read(READ_BYTES))
        try:
            await asyncio.wait({answering, reading}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                data = reading.result()
                self._http.receive_data(data)  # of the next request; more of it is not read before its turn
                if not data and not answering.done():
                    return None
            return await answering
        finally:
            for task in (answering, reading):
                task.cancel()
            # A stream has one reader at a time: the next request is read when this one has let go.
            await asyncio.wait({answering, reading})

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self._writer.write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            self._http.receive_data(await self._reader.read(READ_BYTES))
        return event

    async def _body(self, request: h11.Request) -> bytes:
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise ApiError(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    "body_too_large",
                    f"The body is larger than {MAX_BODY_BYTES} bytes.",
                )
        return bytes(body)

    async def _send(self, answer: Answer, *, is_last: bool = False) -> None:
        headers = {**answer.headers, "Content-Length": str(len(answer.body))}
        if is_last:
            headers["Connection"] = "close"
        head = h11.Response(status_code=answer.status, headers=list(headers.items()))
        for event in (head, h11.Data(data=answer.body), h11.EndOfMessage()):
            self._writer.write(self._http.send(event) or b"")
        async with asyncio.timeout(REQUEST_SECONDS):
            await self._writer.drain()
