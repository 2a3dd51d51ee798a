"""Contender (a), the floor: one bare ASGI function and a pooled client. Nothing is checked, nothing survives."""

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_core import from_json, to_json

from bench.contenders.pooled import PooledRollouts
from bench.contenders.work import ADD_TOOL

Send = Callable[[dict[str, Any]], Awaitable[None]]

_TOOLS = to_json([ADD_TOOL])
_rollouts = PooledRollouts()


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Send,
) -> None:
    """Answers GET with 200 and POST with 202 and the tools."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["method"] == "GET":
        await _answer(send, 200, b'{"status":"healthy"}')
        return
    event = await receive()
    body = event["body"]
    while event["more_body"]:
        event = await receive()
        body += event["body"]
    init = from_json(body)
    await _answer(send, 202, b'{"rollout_id":%b,"tools":%b}' % (to_json(init["rollout_id"]), _TOOLS))
    _rollouts.start(init)


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
