"""What a run of the kit is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_TIMEOUT_SECONDS = 60.0
DEFAULT_SETTLE_SECONDS = 1.0
DEFAULT_CALLBACK_HOST = "127.0.0.1"
DEFAULT_CONCURRENT_ROLLOUTS = 32
DEFAULT_OVERLOAD_ROLLOUTS = 300
DRAIN_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_DRAIN_SECONDS"
SHORT_DRAIN_SECONDS = 2.5
"""Of a server that takes it from its environment, where the kit sets it."""
RUN_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_REQUEST_TIMEOUT_SECONDS"
SHORT_RUN_SECONDS = 1.0
"""Limit of a run, of the last process that the kit starts, in the same way."""
SERVER_KEY_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_API_KEY"


@dataclass(frozen=True)
class KitOptions:
    """Where the server is, how it reaches us, and how patient we are."""

    server_url: str
    """Base URL of the server under test, without a trailing slash."""
    api_key: str | None = None
    """The server's own key; ``None`` if it has none."""
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    """Longest wait for any one thing the server has to do."""
    settle_seconds: float = DEFAULT_SETTLE_SECONDS
    """How long nothing more may come before what must not come counts as absent."""
    callback_host: str = DEFAULT_CALLBACK_HOST
    """Interface that the trainer's endpoint listens on."""
    callback_port: int = 0
    """Its port; 0 takes a free one."""
    callback_url: str | None = None
    """Its address as the server sees it; ``None``: the interface and port."""
    init_fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields that every init gets, for agents that need them (``metadata``, ``messages``)."""
    policy: Any = None
    """Replies of an agent that needs its own, in a form of ``policy``; ``None``: the kit's."""
    call_tools: bool = True
    """Whether completions may call the tools that the server offers."""
    concurrent_rollouts: int = DEFAULT_CONCURRENT_ROLLOUTS
    """Rollouts at once in ``load.concurrent``."""
    overload_rollouts: int = DEFAULT_OVERLOAD_ROLLOUTS
    """Most rollouts that ``load.overload`` opens to make the server full."""
    server_command: tuple[str, ...] = ()
    """Starts the server; the kit then owns the process, and can kill it."""
    server_pid: int | None = None
    """A running server that may be asked to stop at the end."""
    drain_seconds: float | None = None
    """How long it lets rollouts go on after SIGTERM; ``None``: not known, so that its end is not waited for."""
