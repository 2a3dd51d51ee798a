"""What ``osmosis trainer`` was asked to do."""

from dataclasses import dataclass
from typing import ClassVar

from osmosis_ai.rollout.core.text import sendable_key
from osmosis_ai.rollout.core.user_errors import UsageError
from osmosis_ai.rollout.run.agents import check_naming
from osmosis_ai.rollout.run.driver import RunPlan
from osmosis_ai.rollout.run.options import RunOptions
from osmosis_ai.rollout.trainer import defaults
from osmosis_ai.rollout.wire.addresses import all_interfaces, is_base_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(RunOptions):
    """The command line. ``api_key`` is the model's."""

    _SETTINGS: ClassVar[tuple[str, ...]] = (*RunOptions._SETTINGS, "server", "policy", "max_tokens_total")

    model: str = defaults.MODEL
    server: str | None = None
    server_key: str | None = None
    concurrency: int = defaults.CONCURRENCY
    repeat: int = 1
    max_turns: int = defaults.MAX_TURNS
    max_tokens_total: int = defaults.MAX_TOKENS_TOTAL
    timeout: float = defaults.ROLLOUT_TIMEOUT_SECONDS
    host: str = defaults.CALLBACK_HOST
    port: int = 0
    callback_url: str | None = None
    protocol: str = defaults.PROTOCOL
    log: str | None = None
    server_log: str | None = None

    @property
    def plan(self) -> RunPlan:
        """The runs to make."""
        return RunPlan(self.offset, self.repeat, limit=self.limit)

    def _check_agent(self) -> None:
        if [self.module, self.mcp, self.server].count(None) != 2:
            raise UsageError(
                "Give either -m module:attribute or --mcp DIR to start a server, or --server URL to use one."
            )
        check_naming(self.module, self.mcp, self.reward, is_required=False)

    def _combination_problem(self) -> str | None:
        if self.protocol not in defaults.PROTOCOLS:
            return f"--protocol {self.protocol!r} is none: give one of {', '.join(defaults.PROTOCOLS)}."
        try:
            sendable_key(self.server_key or "none", f"The key of --server-key or {defaults.SERVER_KEY_VARIABLE}")
        except ValueError as error:
            return f"{error}."
        if self.server is not None and self.log is not None:
            return "--log goes with -m: the server at --server writes its own traces."
        if self.server is not None and self.server_log is not None:
            return "--server-log goes with -m: the server at --server has its own log."
        if self.server is not None and self.callback_url is None and all_interfaces(self.host):
            return f"--host {self.host} is no address to call back: give --callback-url too."
        for flag, url in (("--server", self.server), ("--callback-url", self.callback_url)):
            if url is not None and not is_base_url(url):
                return f"{flag} {url!r} is not a base URL such as http://127.0.0.1:9000."
        return RunOptions._combination_problem(self)
