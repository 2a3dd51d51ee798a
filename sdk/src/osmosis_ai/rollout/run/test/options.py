"""What ``osmosis test`` was asked to do."""

import sys
from dataclasses import dataclass
from typing import Any

from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.run import defaults
from osmosis_ai.rollout.run.driver import RunPlan
from osmosis_ai.rollout.run.options import RunOptions, flag_of

_BATCH_ONLY = ("output", "resume", "as_json", "min_reward")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(RunOptions):
    """The command line."""

    concurrency: int = defaults.CONCURRENCY
    repeat: int = 1
    min_reward: float | None = None
    interactive: bool = False
    row: int | None = None

    @property
    def plan(self) -> RunPlan:
        """The runs to make."""
        return RunPlan(self.offset, self.repeat, limit=self.limit)

    @property
    def is_silent(self) -> bool:
        """Whether standard output is not for people."""
        return self.as_json or (self.quiet and not self.interactive)

    @property
    def runs_all_or_none(self) -> bool:
        """Step by step, rows are chosen by their number."""
        return self.strict or self.interactive

    def _combination_problem(self) -> str | None:
        if self.row is not None and not self.interactive:
            return "--row works in --interactive mode only: add -i."
        given = [name for name in _BATCH_ONLY if getattr(self, name) not in (None, False)]
        if self.interactive and given:
            return f"{flag_of(given[0])} is for a batch: leave it out, or leave out --interactive."
        return RunOptions._combination_problem(self)


def config_of(options: Options, inputs: dict[str, Any]) -> dict[str, Any]:
    """All that a run can be repeated from; no keys."""
    return {
        "sdk_version": PACKAGE_VERSION,
        "python_version": sys.version.split()[0],
        "model": options.name,
        "base_url": options.base_url,
        "dataset": options.dataset,
        **inputs["settings"],
        "repeat": options.repeat,
        "limit": options.limit,
        "concurrency": options.concurrency,
        "timeout_seconds": options.timeout,
        "digests": {"dataset": inputs["dataset"], "agent": inputs["agent"]},
    }
