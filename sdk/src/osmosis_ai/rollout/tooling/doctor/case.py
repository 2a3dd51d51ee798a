"""The set-up under examination, with the evidence that several checks share; each piece is gathered once."""

import os
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from pydantic import ValidationError

from osmosis_ai.rollout.core.settings import (
    DEFAULT_JOURNAL,
    JOURNAL_OFF,
    RolloutClientSettings,
    RolloutServerSettings,
    RolloutSettings,
)
from osmosis_ai.rollout.core.trace.folder import TRACES_VARIABLE
from osmosis_ai.rollout.server.serve import API_KEY_VARIABLE
from osmosis_ai.rollout.tooling.doctor.agent_report import AgentChild, AgentReport
from osmosis_ai.rollout.tooling.doctor.journal_report import JournalReport, look_at_journal
from osmosis_ai.rollout.tooling.doctor.port_report import PortReport, look_at_port
from osmosis_ai.rollout.tooling.doctor.shared import shared
from osmosis_ai.rollout.tooling.doctor.trainer_report import TrainerReport, call_trainer
from osmosis_ai.rollout.tooling.doctor.types import Need, Setup
from osmosis_ai.rollout.wire.network import all_interfaces

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - the default of osmosis serve
LOOPBACK = "127.0.0.1"
_MARGIN_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class SettingsReport:
    """The settings that hold, defaults in place of wrong ones; ``wrong`` says why, a sentence a variable."""

    client: RolloutClientSettings
    server: RolloutServerSettings
    wrong: tuple[str, ...]


class Case:
    """A ``Setup`` and the time there is; ``deadline`` is a monotonic time in seconds."""

    def __init__(self, setup: Setup, deadline: float, agent_child: AgentChild | None = None) -> None:
        self.setup = setup
        self.deadline = deadline
        self._agent_child = agent_child

    def close(self) -> None:
        """End what was started and is still at work."""
        if self._agent_child is not None:
            self._agent_child.kill()

    @property
    def seconds_left(self) -> float:
        """Until evidence must be there, so that checks still have a moment to judge it."""
        return max(self.deadline - time.monotonic() - _MARGIN_SECONDS, 0.05)

    def has(self, need: Need) -> bool:
        """Whether the set-up says what a check needs."""
        given = {
            Need.AGENT: self.setup.module or self.setup.mcp,
            Need.TRAINER: self.setup.trainer_url,
            Need.TRAINER_KEY: self.setup.trainer_key,
            Need.TRACES: self.traces,
        }
        return bool(given[need])

    @property
    def host(self) -> str:
        """The address to bind, as ``osmosis serve`` chooses it."""
        return self.setup.host or (LOOPBACK if self.setup.local else ALL_INTERFACES)

    @property
    def is_open(self) -> bool:
        """Whether other machines may reach the server."""
        return all_interfaces(self.host) or not is_loopback(self.host)

    @property
    def api_key(self) -> str | None:
        """The server's own key, if there is one."""
        if self.setup.local:
            return None
        if self.setup.api_key is not None:
            return self.setup.api_key
        setting = self.settings.server.api_key
        if setting is None and self.settings.wrong:
            return os.environ.get(API_KEY_VARIABLE)
        return None if setting is None else setting.get_secret_value()

    @property
    def traces(self) -> str | None:
        """The folder that traces go to."""
        return self.setup.traces or os.environ.get(TRACES_VARIABLE) or None

    @property
    def journal_path(self) -> Path | None:
        """Where the journal is or would be; ``None``: it is off."""
        settings = self.settings.server
        named = settings.journal if "journal" in settings.model_fields_set else DEFAULT_JOURNAL
        where = self.setup.journal if self.setup.journal is not None else named
        return None if where == JOURNAL_OFF else Path(where)

    @shared
    def settings(self) -> SettingsReport:
        """The settings in the environment and in ``.env``."""
        wrong: list[str] = []
        client, server = RolloutClientSettings.model_construct(), RolloutServerSettings.model_construct()
        try:
            client = RolloutClientSettings()
        except (ValidationError, ValueError, OSError) as error:
            wrong += _sentences(error, RolloutClientSettings)
        try:
            server = RolloutServerSettings()
        except (ValidationError, ValueError, OSError) as error:
            wrong += _sentences(error, RolloutServerSettings)
        if not wrong:
            try:
                RolloutSettings()
            except (ValidationError, ValueError, OSError) as error:
                wrong += _sentences(error, RolloutSettings)
        return SettingsReport(client, server, tuple(dict.fromkeys(wrong)))

    @shared
    def agent(self) -> AgentReport:
        """The agent loop, loaded in a process of its own."""
        if self._agent_child is None:
            self._agent_child = AgentChild(self.setup.module, self.setup.mcp)
        return self._agent_child.report(self.seconds_left)

    @shared
    def port(self) -> PortReport:
        """The address to bind, and who has it."""
        return look_at_port(self.host, self.setup.port, self.api_key, self.seconds_left)

    @shared
    def trainer(self) -> TrainerReport:
        """What the trainer answers."""
        return call_trainer(self.setup.trainer_url or "", self.setup.trainer_key, self.seconds_left)

    @shared
    def journal(self) -> JournalReport:
        """The journal's file and what lies beside it."""
        return look_at_journal(self.journal_path)


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine and reachable from it alone; by its text, nothing is resolved."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _sentences(
    error: Exception, model: type[RolloutSettings | RolloutClientSettings | RolloutServerSettings]
) -> list[str]:
    if not isinstance(error, ValidationError):
        return [str(error)]
    prefix = str(model.model_config.get("env_prefix"))
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [f"{prefix}{'_'.join(map(str, each['loc'])).upper() or '*'}: {each['msg']}" for each in found]
