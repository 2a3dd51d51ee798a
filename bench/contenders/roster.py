"""The contenders: what each is called, and the command and environment that start it."""

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

PROJECT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
MINIMAL_AGENT = "bench.contenders.agent:agent_loop"
EXAMPLE_AGENT = "server:agent_loop"


class Contender(StrEnum):
    """A server under load. Each is this project's but for the last three."""

    OURS = "ours"
    """The floor's agent on the SDK, journal on, tracing off."""
    OURS_NO_JOURNAL = "ours, no journal"
    OURS_TRACED = "ours, traced"
    """Journal and tracing on."""
    OURS_TRACED_NO_JOURNAL = "ours, traced, no journal"
    EXAMPLE = "ours, example agent"
    """The calculator of ``server.py``, journal on, tracing off."""
    FLOOR = "(a) raw ASGI floor"
    FASTAPI = "(b) FastAPI, pooled"
    CLIENT_PER_ROLLOUT = "(c) client per rollout"

    @property
    def is_ours(self) -> bool:
        """Whether it is this project's server."""
        return self not in _APPS


_APPS = {
    Contender.FLOOR: "bench.contenders.floor:app",
    Contender.FASTAPI: "bench.contenders.fastapi_pooled:app",
    Contender.CLIENT_PER_ROLLOUT: "bench.contenders.client_per_rollout:app",
}
_TRACED = {Contender.OURS_TRACED, Contender.OURS_TRACED_NO_JOURNAL}
_WITHOUT_JOURNAL = {Contender.OURS_NO_JOURNAL, Contender.OURS_TRACED_NO_JOURNAL}


@dataclass(frozen=True)
class Launch:
    """How a server process is started."""

    command: list[str]
    environment: dict[str, str]


def launch(contender: Contender, port: int, concurrency: int, folder: Path, api_key: str, workers: int = 1) -> Launch:
    """The command of a contender that takes ``concurrency`` rollouts at once; ``folder`` is for its files."""
    if not contender.is_ours:
        options = ["--host", LOOPBACK, "--port", str(port), "--loop", "uvloop", "--http", "httptools"]
        quiet = ["--no-access-log", "--log-level", "warning", "--backlog", "8192"]
        return Launch([sys.executable, "-m", "uvicorn", _APPS[contender], *options, *quiet], {})
    agent = EXAMPLE_AGENT if contender is Contender.EXAMPLE else MINIMAL_AGENT
    options = ["-m", agent, "--host", LOOPBACK, "--port", str(port), "--log-level", "warning"]
    options += ["--journal", "off" if contender in _WITHOUT_JOURNAL else str(folder / "journal.db")]
    if contender in _TRACED:
        options += ["--log", str(folder / "traces")]
    if workers > 1:
        options += ["--workers", str(workers)]
    return Launch([sys.executable, "-m", "osmosis_ai", "serve", *options], _settings(concurrency, api_key))


def _settings(concurrency: int, api_key: str) -> dict[str, str]:
    return {
        "OSMOSIS_ROLLOUT_SERVER_API_KEY": api_key,
        "OSMOSIS_ROLLOUT_SERVER_MAX_CONCURRENT_ROLLOUTS": str(max(100, concurrency)),
    }
