"""Two requests over one connection: what is behind the first is no part of it."""

import asyncio
from collections.abc import Mapping

import h11
import httpx

from rollout_conformance.asking import INIT_PATH
from rollout_conformance.evidence import sending
from rollout_conformance.kit import Kit
from rollout_conformance.scripts import encoded
from rollout_conformance.text import quoted
from rollout_conformance.vocabulary import Failed

READ_BYTES = 65_536


async def status_behind(kit: Kit, headers: Mapping[str, str], path: str) -> int | None:
    """The status of a GET of ``path`` behind an init that is refused for its ``headers``.

    ``None`` where the server has closed the connection, as it may.

    Raises:
        Failed: there is no answer, or one that is no HTTP.
    """
    url, body = httpx.URL(kit.options.server_url), encoded(kit.play().init)
    base, host = url.raw_path.decode().rstrip("/"), url.netloc.decode()
    about = {"Host": host, "Content-Length": str(len(body)), **headers}
    requests = (
        (h11.Request(method="POST", target=base + INIT_PATH, headers=list(about.items())), body),
        (h11.Request(method="GET", target=base + path, headers=[("Host", host)]), b""),
    )
    sending(f"POST {INIT_PATH} with {quoted(headers)}, and GET {path} on the same connection")
    statuses: list[int] = []
    try:
        async with asyncio.timeout(kit.options.timeout_seconds), kit.own_connection() as (reader, writer):
            connection = h11.Connection(h11.CLIENT)
            for request, content in requests:
                for part in (request, h11.Data(data=content), h11.EndOfMessage()):
                    writer.write(connection.send(part) or b"")
                while connection.their_state in (h11.SEND_RESPONSE, h11.SEND_BODY):
                    event = connection.next_event()
                    if event is h11.NEED_DATA:
                        received = await reader.read(READ_BYTES)
                        if not received and len(statuses) == 1 and connection.their_state is h11.SEND_RESPONSE:
                            return None
                        connection.receive_data(received)
                    elif isinstance(event, h11.Response):
                        statuses.append(event.status_code)
                if connection.their_state is not h11.DONE or connection.our_state is not h11.DONE:
                    break
                connection.start_next_cycle()
    except ConnectionError:
        pass  # it is closed
    except (OSError, TimeoutError, h11.RemoteProtocolError) as error:
        got = f"{type(error).__name__}: {error}"
        raise Failed("an answer to a request behind a refused init, or a closed connection", got) from None
    return statuses[1] if len(statuses) > 1 else None
