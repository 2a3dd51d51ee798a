"""Receiving the bodies of inits: a bound on the size and time of each, and on all that are on their way.

Invariant: what has come of bodies that are not whole is at most ``max_unfinished_bytes``, and what one read brings.
Beyond it whoever has taken longest is given up: an init that comes at once is taken, however many do not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from osmosis_ai.rollout.core.turnstile import turnstile_of
from osmosis_ai.rollout.server.requests import RefusedError, require_json
from osmosis_ai.rollout.wire.inbound import has_whole_body, received

Receive = Callable[[], Awaitable[Mapping[str, Any]]]

UNFINISHED_BYTES = 64 * 1024 * 1024
"""The least; twice the largest body, if that is more."""
_AT_ONCE = 0.0
"""By any loop's clock."""


class Bodies:
    """Of one app; used in one event loop at a time."""

    def __init__(self, max_bytes: int, timeout_seconds: float) -> None:
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        self._max_unfinished_bytes = max(UNFINISHED_BYTES, 2 * max_bytes)
        self._unfinished: dict[asyncio.Timeout, int] = {}
        """The bodies that are on their way, the longest first: how much of each has come."""
        self._unfinished_bytes = 0

    async def receive(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The whole body of a request with ``headers``, whose messages ``receive`` gives (ASGI).

        Raises:
            RefusedError: 415 for a body that says it is not JSON, or is compressed, 413 if it is too large, 408 if it
                is too slow, 400 if the client goes away.
        """
        require_json(headers)
        # Cut below, as Python reads no number of thousands of digits.
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared[:20]) > self._max_bytes:
            raise self._too_large()
        body = bytearray()
        if has_whole_body(receive):
            self._add(await received(receive), body)
            return bytes(body)
        limit: asyncio.Timeout | None = None
        try:
            async with asyncio.timeout(self._timeout_seconds) as limit:
                while self._add(await received(receive), body):
                    self._note(limit, len(body))
                    # Or large bodies would be all that a round of the loop has time for.
                    await turnstile_of(asyncio.get_running_loop()).enter()
                return bytes(body)
        except TimeoutError:
            problem = f"The body did not arrive within {self._timeout_seconds:g} s."
            if limit is not None and limit.when() == _AT_ONCE:
                problem = "The body came slower than others, and there is no room for more."
            raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, problem, "body_too_slow") from None
        finally:
            if limit is not None:
                self._unfinished_bytes -= self._unfinished.pop(limit, 0)

    def _add(self, message: Mapping[str, Any], body: bytearray) -> bool:
        """Add what ``message`` brings; whether more is to come."""
        if message["type"] == "http.disconnect":
            raise RefusedError(HTTPStatus.BAD_REQUEST, "The body ended early.", "body_cut_off")
        # Counted all the same: a chunked body declares no length.
        body += message.get("body", b"")
        if len(body) > self._max_bytes:
            raise self._too_large()
        return bool(message.get("more_body", False))

    def _note(self, limit: asyncio.Timeout, size_bytes: int) -> None:
        self._unfinished_bytes += size_bytes - self._unfinished.get(limit, 0)
        self._unfinished[limit] = size_bytes
        while self._unfinished_bytes > self._max_unfinished_bytes and self._unfinished:
            oldest = next(iter(self._unfinished))
            self._unfinished_bytes -= self._unfinished.pop(oldest)
            oldest.reschedule(_AT_ONCE)

    def _too_large(self) -> RefusedError:
        return RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {self._max_bytes} bytes.", "body_too_large"
        )
