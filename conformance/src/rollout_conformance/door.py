"""An address of the kit's trainer at which nobody listens while it is shut: a connection to it is refused."""

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from rollout_conformance.endpoint import Handler, address_of, bound, served


class Door:
    """Keeps its port until ``__aexit__``; shut at first."""

    def __init__(self, handler: Handler, host: str) -> None:
        self._handler = handler
        self._host = host
        # Never listens, so nothing is led to it; whoever shares the port has to have asked for that, and be this user.
        self._kept = bound(host, 0)
        self._listening = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.shut()
        self._kept.close()

    @property
    def url(self) -> str:
        """``http`` URL of it."""
        return address_of(self._kept, self._host)

    async def open(self) -> None:
        """Listen."""
        listener = bound(self._host, self._kept.getsockname()[1])
        listener.listen()
        await self._listening.enter_async_context(served(self._handler, listener))

    async def shut(self) -> None:
        """Listen no more, and close every connection."""
        await self._listening.aclose()
        self._listening = AsyncExitStack()
