"""The set-up under examination, with the evidence that several checks share, gathered once; and what a check is."""

import functools
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic_settings import BaseSettings

from osmosis_ai.rollout.core.settings import (
    DEFAULT_JOURNAL,
    JOURNAL_OFF,
    RolloutClientSettings,
    RolloutJudgeSettings,
    RolloutServerSettings,
    RolloutSettings,
    wrong_variables,
)
from osmosis_ai.rollout.core.trace.folder import TRACES_VARIABLE
from osmosis_ai.rollout.journal.postgres.address import is_postgres
from osmosis_ai.rollout.server.serve import DEFAULT_HOST
from osmosis_ai.rollout.server.startup import API_KEY_VARIABLE
from osmosis_ai.rollout.tooling.doctor.agent_child import AgentChild
from osmosis_ai.rollout.tooling.doctor.types import Finding, Need, Setup
from osmosis_ai.rollout.wire.addresses import all_interfaces, is_loopback

_MARGIN_SECONDS = 0.2

Evidence = TypeVar("Evidence")
Settings = TypeVar("Settings", bound=BaseSettings)


def once(gather: "Callable[[Case], Evidence]") -> "Callable[[Case], Evidence]":
    """Evidence is gathered by the first thread that asks; others wait for it, and for nothing else."""

    @functools.wraps(gather)
    def evidence(case: "Case") -> Evidence:
        with case.locks.setdefault(gather, threading.Lock()):
            if gather not in case.gathered:
                case.gathered[gather] = gather(case)
            found: Evidence = case.gathered[gather]
            return found

    return evidence


@dataclass(frozen=True, slots=True)
class SettingsReport:
    """The server's settings, defaults in place of wrong ones; ``wrong`` says of all settings why, each a sentence."""

    server: RolloutServerSettings
    wrong: tuple[str, ...]


class Case:
    """A ``Setup`` and the time there is; both deadlines are monotonic times in seconds, one for the agent's checks."""

    def __init__(
        self, setup: Setup, deadline: float, agent_child: AgentChild | None, agent_deadline: float | None = None
    ) -> None:
        self.setup = setup
        self.deadline = deadline
        self.agent_deadline = deadline if agent_deadline is None else agent_deadline
        self.agent_child = agent_child
        self.locks: dict[Any, threading.Lock] = {}
        self.gathered: dict[Any, Any] = {}

    @property
    def seconds_left(self) -> float:
        """Until evidence must be there, so that checks still have a moment to judge it."""
        return max(self.deadline - time.monotonic() - _MARGIN_SECONDS, 0.05)

    @property
    def agent_seconds_left(self) -> float:
        """As ``seconds_left``, for what waits for the agent's own code."""
        return max(self.agent_deadline - time.monotonic() - _MARGIN_SECONDS, 0.05)

    def has(self, need: Need) -> bool:
        """Whether the set-up says what a check needs."""
        given = {
            Need.AGENT: self.setup.module or self.setup.mcp,
            Need.TRAINER: self.setup.trainer,
            Need.TRACES: self.traces,
            Need.DATASET: self.setup.dataset,
        }
        return bool(given[need])

    @property
    def host(self) -> str:
        """The address to bind, as ``osmosis serve`` chooses it."""
        return self.setup.host or ("127.0.0.1" if self.setup.local else DEFAULT_HOST)

    @property
    def is_open(self) -> bool:
        """Whether other machines may reach the server."""
        return all_interfaces(self.host) or not is_loopback(self.host)

    @property
    def api_key(self) -> str | None:
        """The server's own key, if there is one."""
        if self.setup.local or self.setup.api_key is not None:
            return None if self.setup.local else self.setup.api_key
        setting = self.settings.server.api_key
        if setting is None:
            return os.environ.get(API_KEY_VARIABLE) if self.settings.wrong else None
        return setting.get_secret_value()

    @property
    def traces(self) -> str | None:
        """The folder that traces go to."""
        return self.setup.traces or os.environ.get(TRACES_VARIABLE) or None

    @property
    def journal(self) -> str:
        """Where the journal is or would be, as ``--journal`` takes it."""
        settings = self.settings.server
        named = settings.journal if "journal" in settings.model_fields_set else DEFAULT_JOURNAL
        return self.setup.journal if self.setup.journal is not None else named

    @property
    def journal_path(self) -> Path | None:
        """The journal's file; ``None``: it is off, or in a database."""
        return None if self.journal == JOURNAL_OFF or is_postgres(self.journal) else Path(self.journal)

    @property
    @once
    def settings(self) -> SettingsReport:
        """The settings in the environment and in ``.env``."""
        wrong: list[str] = []

        def read(model: type[Settings]) -> Settings | None:
            try:
                return model()
            except (ValueError, OSError) as error:
                wrong.extend([f"{name}: {why}" for name, why in wrong_variables(error)] or [str(error)])
                return None

        read(RolloutClientSettings)
        read(RolloutJudgeSettings)
        server = read(RolloutServerSettings) or RolloutServerSettings.model_construct()
        if not wrong:
            read(RolloutSettings)
        return SettingsReport(server, tuple(dict.fromkeys(wrong)))


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that may be wrong. ``run`` reads its ``Case`` and changes nothing."""

    id: str
    """Stable, for programs."""
    about: str
    """What it makes sure of."""
    run: Callable[[Case], Finding]
    needs: tuple[Need, ...] = ()


def check(check_id: str, about: str, *needs: Need) -> Callable[[Callable[[Case], Finding]], Check]:
    """Make a function a check; the checks of a module are shown in the order they are written."""
    return lambda run: Check(check_id, about, run, needs)
