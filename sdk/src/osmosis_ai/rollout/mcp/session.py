"""The MCP session that a rollout's tools find in their FastMCP ``Context``, though no client is connected.

There is one a rollout, with an id that nobody else has: what a tool puts under it with ``ctx.set_state`` is seen by the
tools of this rollout alone, and deleted when it ends. Tools are called directly, so a session costs a rollout next to
nothing; the price is that the names below are FastMCP's private ones. Where they are not there (FastMCP before 4),
tools have no session.
"""

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.exceptions import ToolExecutionError
from osmosis_ai.rollout.core.text import cut

logger = logging.getLogger(__name__)

MAX_LOGGED_CHARACTERS = 2000
PROTOCOL_VERSION = "2025-06-18"  # of the last protocol with sessions: later ones have one a request


class ToolSession:
    """The client's end as tools see it, and FastMCP's ``ServerSession``, as far as a ``Context`` asks for it."""

    client_params = None
    client_capabilities = None

    def __init__(self, ctx: RolloutContext) -> None:
        self._ctx = ctx
        self._requests = 0
        self._fastmcp_state_prefix = uuid.uuid4().hex  # what Context.session_id gives
        self.stored: set[tuple[Any, str | None, str]] = set()
        """Store, collection and key of what tools have put there."""

    async def send_log_message(self, level: str, data: Any, logger: str | None = None, **_: Any) -> None:
        """What a tool says with ``ctx.info`` and the like goes into the rollout's trace."""
        said = data.get("msg", data) if isinstance(data, dict) else getattr(data, "msg", data)
        text = cut(str(said), MAX_LOGGED_CHARACTERS)
        self._ctx.log_event("mcp_log", level=level, message=text, **({"logger": logger} if logger else {}))

    async def send_progress_notification(self, *_: Any, **__: Any) -> None:
        """Nobody waits for it."""

    send_notification = send_progress_notification

    async def elicit(self, *_: Any, **__: Any) -> None:
        """No person is there to ask."""
        raise ToolExecutionError("The tool asks for input, which nobody can give here")

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Have the tools that are called within find this session."""
        from fastmcp.server.dependencies import FastMCPRequestContext, fastmcp_request_ctx

        self._requests += 1
        source = SimpleNamespace(meta=None, params=None)
        request = FastMCPRequestContext(
            session=self,  # type: ignore[arg-type]
            request_id=str(self._requests),
            meta=None,
            request=None,
            protocol_version=PROTOCOL_VERSION,
            close_sse_stream=None,
            lifespan_context={},
            _srctx=source,  # type: ignore[arg-type]
        )
        tokens = _current.set(self), fastmcp_request_ctx.set(request)
        try:
            yield
        finally:
            fastmcp_request_ctx.reset(tokens[1])
            _current.reset(tokens[0])

    @property
    def _connection(self) -> None:
        """Asked for whenever a tool is about to use its state; of which server, FastMCP knows: a mounted one has its
        own."""
        from fastmcp.server.dependencies import get_server

        _record(get_server())

    async def close(self) -> None:
        """Delete the state; what cannot be deleted is out of everybody's reach, and FastMCP's to expire."""
        while self.stored:
            store, collection, key = self.stored.pop()
            try:
                await store.delete(key=key, collection=collection)
            except Exception as error:  # noqa: BLE001 - a store is the user's, and its failure no reason to lose a result
                logger.warning("The state of an MCP session could not be deleted: %s: %s", type(error).__name__, error)


def has_sessions() -> bool:
    """Whether FastMCP is one that can be given a session."""
    try:
        from fastmcp.server.dependencies import FastMCPRequestContext, fastmcp_request_ctx, get_server
    except ImportError:
        return False
    return all((FastMCPRequestContext, fastmcp_request_ctx, get_server))


_current: ContextVar[ToolSession | None] = ContextVar("_current", default=None)


def _record(server: Any) -> None:
    """Have the store of ``server`` tell the current session what is put there."""
    adapter: Any = getattr(server, "_state_store", None)
    store: Any = getattr(adapter, "_key_value", None)
    if store is None or getattr(store, "_tells_sessions", False):
        return
    from key_value.aio.wrappers.base import BaseWrapper

    class Telling(BaseWrapper):
        _tells_sessions = True
        key_value = store

        async def put(self, key: str, value: Any, *, collection: str | None = None, ttl: Any = None) -> None:
            # Told first: a rollout that is cancelled meanwhile may have stored it.
            if (session := _current.get()) is not None:
                session.stored.add((store, collection, key))
            await store.put(key=key, value=value, collection=collection, ttl=ttl)

    adapter._key_value = Telling()
