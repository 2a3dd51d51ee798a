"""What ``osmosis test`` was asked to do, and whether that makes sense together."""

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from osmosis_ai.rollout.run.common_cli import build_completion_params
from osmosis_ai.rollout.run.test import defaults

if TYPE_CHECKING:
    from osmosis_ai.rollout.run.driver import Plan

# An option of a batch, and what it is good for.
_BATCH_ONLY = ("output", "resume", "as_json", "min_reward")
_AT_LEAST = {"limit": 1, "offset": 0, "max_turns": 1, "max_tokens": 1, "concurrency": 1, "repeat": 1, "row": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line. Indices count from 0 in the file; times are in seconds."""

    module: str | None = None
    mcp: str | None = None
    dataset: str = ""
    model: str = defaults.MODEL
    limit: int | None = None
    offset: int = 0
    api_key: str | None = None
    base_url: str | None = None
    max_turns: int = defaults.MAX_TURNS
    max_tokens: int | None = None
    temperature: float | None = None
    concurrency: int = defaults.CONCURRENCY
    repeat: int = 1
    timeout: float = defaults.ROW_TIMEOUT_SECONDS
    output: str | None = None
    resume: bool = False
    min_reward: float | None = None
    as_json: bool = False
    quiet: bool = False
    interactive: bool = False
    row: int | None = None
    debug: bool = False

    @classmethod
    def of(cls, namespace: Any) -> Self:
        """Out of a parsed command line; what it lacks takes its default."""
        given: dict[str, Any] = {field.name: getattr(namespace, field.name, field.default) for field in fields(cls)}
        return cls(**given)

    @property
    def completion_params(self) -> dict[str, Any]:
        """The sampling settings that were given."""
        return build_completion_params(self.temperature, self.max_tokens)

    @property
    def plan(self) -> "Plan":
        """The runs to make."""
        from osmosis_ai.rollout.run.driver import Plan

        return Plan(self.offset, self.repeat)

    @property
    def is_silent(self) -> bool:
        """Whether standard output is not for people."""
        return self.as_json or (self.quiet and not self.interactive)

    def problem(self) -> str | None:
        """The first thing that is wrong, in a sentence."""
        if self.module and self.mcp:
            return "--module and --mcp are mutually exclusive: give one of them."
        if not self.module and not self.mcp:
            return "Either --module (-m) or --mcp is required."
        if self.row is not None and not self.interactive:
            return "--row works in --interactive mode only: add -i."
        return self._number_problem() or self._combination_problem()

    def _number_problem(self) -> str | None:
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                return f"--{name.replace('_', '-')} must be >= {least}."
        if not self.timeout > 0:
            return "--timeout must be > 0."
        for name in ("temperature", "min_reward", "timeout"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                return f"--{name.replace('_', '-')} must be a finite number."
        return None

    def _combination_problem(self) -> str | None:
        given = [name for name in _BATCH_ONLY if getattr(self, name) not in (None, False)]
        if self.interactive and given:
            flag = {"as_json": "--json"}.get(given[0], f"--{given[0].replace('_', '-')}")
            return f"{flag} is for a batch: leave it out, or leave out --interactive."
        if self.resume and not self.output:
            return "--resume needs -o FILE: the results of the run to go on with."
        return None
