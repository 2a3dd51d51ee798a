"""The set-up under examination, with the evidence that several checks share; each piece is gathered once."""

import functools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from osmosis_ai.rollout.core.settings import DEFAULT_JOURNAL, JOURNAL_OFF
from osmosis_ai.rollout.core.trace.folder import TRACES_VARIABLE
from osmosis_ai.rollout.server.serve import API_KEY_VARIABLE
from osmosis_ai.rollout.tooling.doctor.address import PortReport, look_at_port
from osmosis_ai.rollout.tooling.doctor.agent import AgentChild, AgentReport
from osmosis_ai.rollout.tooling.doctor.configuration import SettingsReport, look_at_settings
from osmosis_ai.rollout.tooling.doctor.storage import JournalReport, look_at_journal
from osmosis_ai.rollout.tooling.doctor.trainer import TrainerReport, call_trainer
from osmosis_ai.rollout.tooling.doctor.types import Need, Setup
from osmosis_ai.rollout.wire.addresses import all_interfaces, is_loopback

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - the default of osmosis serve
LOOPBACK = "127.0.0.1"
_MARGIN_SECONDS = 0.2

Evidence = TypeVar("Evidence")


def _once(gather: "Callable[[Case], Evidence]") -> "Callable[[Case], Evidence]":
    """Gathered by the first thread that asks; others wait for it, and for nothing else."""

    @functools.wraps(gather)
    def evidence(case: "Case") -> Evidence:
        name = gather.__name__
        with case.locks.setdefault(name, threading.Lock()):
            if name not in case.gathered:
                case.gathered[name] = gather(case)
            found: Evidence = case.gathered[name]
            return found

    return evidence


class Case:
    """A ``Setup`` and the time there is; ``deadline`` is a monotonic time in seconds."""

    def __init__(self, setup: Setup, deadline: float, agent_child: AgentChild | None = None) -> None:
        self.setup = setup
        self.deadline = deadline
        self.locks: dict[str, threading.Lock] = {}
        self.gathered: dict[str, Any] = {}
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
        if setting is None:
            return os.environ.get(API_KEY_VARIABLE) if self.settings.wrong else None
        return setting.get_secret_value()

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

    @property
    @_once
    def settings(self) -> SettingsReport:
        """The settings in the environment and in ``.env``."""
        return look_at_settings()

    @property
    @_once
    def agent(self) -> AgentReport:
        """The agent loop, loaded in a process of its own."""
        if self._agent_child is None:
            self._agent_child = AgentChild(self.setup.module, self.setup.mcp)
        return self._agent_child.report(self.seconds_left)

    @property
    @_once
    def port(self) -> PortReport:
        """The address to bind, and who has it."""
        return look_at_port(self.host, self.setup.port, self.api_key, self.seconds_left)

    @property
    @_once
    def trainer(self) -> TrainerReport:
        """What the trainer answers."""
        return call_trainer(self.setup.trainer_url or "", self.setup.trainer_key, self.seconds_left)

    @property
    @_once
    def journal(self) -> JournalReport:
        """The journal's file and what lies beside it."""
        return look_at_journal(self.journal_path)
