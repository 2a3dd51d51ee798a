"""The page over HTTP: read-only, for this machine's browser alone.

Reading files goes on in a thread, one refresh at a time.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from osmosis_ai.rollout.observe.traces.index import TraceIndex
from osmosis_ai.rollout.observe.traces.viewer.page import SCRIPTS, SERVED_POLICY, STYLE, served_page, static_file
from osmosis_ai.rollout.observe.traces.viewer.report import MAX_EVENTS
from osmosis_ai.rollout.observe.traces.viewer.rows import COLUMNS, row_of
from osmosis_ai.rollout.wire.loopback import FOREIGN_ORIGIN, App, LoopbackGuard, refuse

MAX_EVENT_BYTES_SHOWN = 64 * 1024 * 1024
REFRESH_SECONDS = 0.7
"""How long the page waits for a large folder before it gets a part of it."""
FIRST_SECONDS = 0.2
"""The same for the first part, so that there is something to read."""
_MAX_DIGITS = 16
MAX_WORDS, MAX_WORD_CHARACTERS = 8, 200
_CONTENT_TYPES = {"js": "text/javascript", "css": "text/css"}
_HEADERS = {
    "Content-Security-Policy": SERVED_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def viewer_app(index: TraceIndex) -> App:
    """The ASGI app that shows ``index``, on the loopback interface."""
    viewer = _Viewer(index)
    app = Starlette(
        routes=[
            Route("/", viewer.page),
            Route("/static/{name}", viewer.static),
            Route("/api/rollouts", viewer.rollouts),
            Route("/api/rollouts/{key}", viewer.rollout),
            Route("/api/search", viewer.search),
        ],
        lifespan=viewer.lifespan,
    )
    return LoopbackGuard(always=True).before(_for_its_own_page(app))


def _for_its_own_page(app: App) -> App:
    """``app``, whose data another page cannot even ask for: how long a search takes would tell what it found."""

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/api/"):
            site = dict(scope["headers"]).get(b"sec-fetch-site", b"none")
            if site not in (b"none", b"same-origin"):
                await refuse(FOREIGN_ORIGIN, send)
                return
        await app(scope, receive, send)

    return guarded


class _Viewer:
    def __init__(self, index: TraceIndex) -> None:
        self._index = index
        self._reading = asyncio.Lock()
        self._epoch = secrets.token_hex(8)
        """Of this start: keys and versions of another one mean nothing here."""

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """What has been read is kept at the end, however soon that comes."""
        yield
        async with self._reading:
            await asyncio.to_thread(self._index.keep)

    async def page(self, request: Request) -> Response:
        return Response(served_page(), media_type="text/html", headers=_HEADERS)

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in (*SCRIPTS, STYLE):
            return PlainTextResponse("Not found\n", HTTPStatus.NOT_FOUND, _HEADERS)
        return Response(static_file(name), media_type=_CONTENT_TYPES[name.rpartition(".")[2]], headers=_HEADERS)

    async def rollouts(self, request: Request) -> Response:
        """The rows that changed after the version ``since`` of the start ``epoch``."""
        since = request.query_params.get("since", "0") if self._is_of_this_start(request) else "0"
        async with self._reading:
            body = await asyncio.to_thread(self._changes, _number(since) or 0)
        return Response(body, media_type="application/json", headers=_HEADERS)

    async def rollout(self, request: Request) -> Response:
        """The events of one rollout."""
        key = _number(request.path_params["key"])
        if not self._is_of_this_start(request):
            return PlainTextResponse("The viewer was started anew\n", HTTPStatus.CONFLICT, _HEADERS)
        if key is None or key >= len(self._index.rollouts):
            return PlainTextResponse("No such rollout\n", HTTPStatus.NOT_FOUND, _HEADERS)
        try:
            async with self._reading:
                body = await asyncio.to_thread(self._events, key)
        except OSError:
            return PlainTextResponse("The trace file is gone\n", HTTPStatus.GONE, _HEADERS)
        return Response(body, media_type="application/json", headers=_HEADERS)

    async def search(self, request: Request) -> Response:
        """For each ``word``, the keys of the rollouts whose tools were called with it or said it."""
        words = [word[:MAX_WORD_CHARACTERS].lower() for word in request.query_params.getlist("word")[:MAX_WORDS]]
        async with self._reading:
            body = await asyncio.to_thread(self._found, words)
        return Response(body, media_type="application/json", headers=_HEADERS)

    def _is_of_this_start(self, request: Request) -> bool:
        return request.query_params.get("epoch", self._epoch) == self._epoch

    def _found(self, words: list[str]) -> bytes:
        rollouts = self._index.rollouts
        found = [[key for key, one in enumerate(rollouts) if word in one.tool_text] for word in words]
        return to_json({"epoch": self._epoch, "found": found})

    def _changes(self, since: int) -> bytes:
        version = self._index.refresh(REFRESH_SECONDS if since else FIRST_SECONDS)
        if since > version:
            since = 0
        answer: dict[str, Any] = {
            "version": version,
            "epoch": self._epoch,
            "rows": [row_of(key, rollout) for key, rollout in self._index.since(since)],
            "whole": since == 0,
            "more": self._index.is_behind,
        }
        if since == 0:
            answer |= {"columns": COLUMNS, "source": self._index.place}
        return to_json(answer | {"unreadable": self._index.unreadable_lines}, inf_nan_mode="null")

    def _events(self, key: int) -> bytes:
        rollout = self._index.rollouts[key]
        is_large = rollout.end - rollout.start > MAX_EVENT_BYTES_SHOWN
        events: list[dict[str, Any]] = []
        shown, cut = 0, False
        for event in self._index.events(key):
            shown += len(to_json(event, inf_nan_mode="null")) if is_large else 0
            if cut := shown > MAX_EVENT_BYTES_SHOWN or len(events) == MAX_EVENTS:
                break
            events.append(event)
        answer = {"events": events, "bytes": rollout.end - rollout.start, "cut": cut}
        return to_json(answer, inf_nan_mode="null")


def _number(text: str) -> int | None:
    """A position or a version; ``int`` alone takes other digits, and fails for thousands of them."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < _MAX_DIGITS else None
