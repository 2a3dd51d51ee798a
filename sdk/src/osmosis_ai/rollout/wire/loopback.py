"""Keeps web pages away from servers of this machine that ask for no key.

A page elsewhere can make its own name resolve to 127.0.0.1 and then read what a server here answers (DNS rebinding), or
simply post to it. A browser tells on it either way: ``Host`` is the page's name, ``Origin`` the page. So what comes
over the loopback interface must call the server by a name that nobody else can give to this machine, and what changes
anything must not come from another origin. A program without a browser has no reason to send anything else.
"""

import json
import re
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any

from osmosis_ai.rollout.wire.addresses import is_loopback

_PORT = re.compile(r":\d*\Z")
_USUAL = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})
FOREIGN_ORIGIN = {"detail": "A page of another origin may not do this.", "code": "foreign_origin"}
"""The body of a refusal."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})

App = Callable[[Any, Any, Any], Awaitable[None]]


class LoopbackGuard:
    """Looks at the requests to one server.

    Args:
        names: further host names that mean this server, such as the one it is bound to; addresses need none.
        always: also where the connection was not made to a loopback address.
    """

    def __init__(self, names: Iterable[str | None] = (), *, always: bool = False) -> None:
        self._names = frozenset(name.lower() for name in names if name)
        self._always = always

    def problem_of(self, scope: Any) -> dict[str, str] | None:
        """The body of a refusal, for a request that a page elsewhere may have sent."""
        # The address that was connected to, as uvicorn has it from the socket.
        server = scope.get("server")
        if not self._always and not (server and (server[0] in _USUAL or is_loopback(server[0]))):
            return None
        hosts, origins = [], []
        for name, value in scope["headers"]:
            if name == b"host":
                hosts.append(value.decode("latin-1").lower())
            elif name == b"origin":
                origins.append(value.decode("latin-1").lower())
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return {"detail": "This server answers to localhost only; the Host is another.", "code": "foreign_host"}
        # "null" is the origin of a page that has none, or hides it.
        if origins and scope["method"] not in _READING and origins[0].rpartition("//")[2] != hosts[0]:
            return FOREIGN_ORIGIN
        return None

    def before(self, app: App) -> App:
        """``app``, reached only by what has no problem."""

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and (problem := self.problem_of(scope)) is not None:
                await refuse(problem, send)
            else:
                await app(scope, receive, send)

        return guarded

    def _is_ours(self, host: str) -> bool:
        name = _PORT.sub("", host)
        return name in _USUAL or name in self._names or name.endswith(".localhost") or is_loopback(name)


async def refuse(
    problem: dict[str, str], send: Callable[[Any], Awaitable[None]], status: HTTPStatus = HTTPStatus.FORBIDDEN
) -> None:
    """Answer with ``problem`` as JSON."""
    body = json.dumps(problem).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
