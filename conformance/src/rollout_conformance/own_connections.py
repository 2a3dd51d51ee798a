"""HTTP/1.1 requests, each over a connection of its own, in httpx's words: no proxy of the environment, no pool.

A connection that is kept open may be closed when it is used again, and may belong to a process that is about to go. The
protocol is h11's. A run makes thousands of requests: what httpx does beside them (a pool, redirects, cookies) was most
of the work of a kit that has one processor.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterable, Mapping, Sequence
from functools import cache

import h11
import httpx

from rollout_conformance.endpoint import MAX_BODY_BYTES, READ_BYTES

USER_AGENT = "rollout-conformance"
MAX_HEAD_BYTES = 100 * 1024
_PORTS = {"http": 80, "https": 443}
_certificates = cache(httpx.create_ssl_context)  # to load them takes 20 ms or more, for each request otherwise

Headers = Mapping[str, str] | Sequence[tuple[bytes, bytes]]


class OwnConnections:
    """As many as there are requests.

    Args:
        seconds: the longest wait for a whole answer.
        connect_seconds: the longest for a connection.
    """

    def __init__(self, seconds: float, connect_seconds: float | None = None) -> None:
        self._seconds = seconds
        self._connect_seconds = seconds if connect_seconds is None else connect_seconds

    async def request(
        self, method: str, url: str, *, content: bytes | AsyncIterable[bytes] | None = None, headers: Headers = ()
    ) -> httpx.Response:
        """The whole answer, whatever it says.

        Raises:
            httpx.TransportError: there is none.
        """
        request = httpx.Request(method, url, content=content, headers=headers)
        request.headers["User-Agent"] = USER_AGENT
        reader, writer = await self._connected(request.url)
        try:
            async with asyncio.timeout(self._seconds):
                return await _exchanged(request, reader, writer)
        except TimeoutError as error:
            raise httpx.ReadTimeout("the answer is not there in time") from error
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error
        except OSError as error:
            raise httpx.ReadError(str(error)) from error
        finally:
            # What is not answered yet when its check is cancelled is not waited for either.
            writer.transport.abort()

    async def _connected(self, url: httpx.URL) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tls: ssl.SSLContext | None = _certificates(trust_env=False) if url.scheme == "https" else None
        try:
            async with asyncio.timeout(self._connect_seconds):
                return await asyncio.open_connection(url.raw_host.decode(), url.port or _PORTS[url.scheme], ssl=tls)
        except TimeoutError as error:
            raise httpx.ConnectTimeout("no connection in time") from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error


async def _exchanged(
    request: httpx.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> httpx.Response:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
    unsent = connection.send(head) or b""
    # A server may refuse what it has not read, and close: its answer counts.
    with contextlib.suppress(OSError):
        async for part in _parts(request):
            writer.write(unsent + (connection.send(h11.Data(data=part)) or b""))
            await writer.drain()
            unsent = b""
        writer.write(unsent + (connection.send(h11.EndOfMessage()) or b""))
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Response):
            answer = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise httpx.ReadError(f"an answer of more than {MAX_BODY_BYTES} bytes")
        elif isinstance(event, h11.EndOfMessage):
            raw = answer.headers.raw_items()
            return httpx.Response(answer.status_code, headers=raw, content=bytes(body), request=request)
        elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            raise httpx.RemoteProtocolError("the connection ends before the answer does")


async def _parts(request: httpx.Request) -> AsyncIterable[bytes]:
    if isinstance(request.stream, httpx.ByteStream):
        if body := request.content:
            yield body
    elif isinstance(request.stream, httpx.AsyncByteStream):
        async for part in request.stream:
            yield part
