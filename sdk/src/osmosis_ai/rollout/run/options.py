"""What a command that runs an agent over a dataset was asked to do, and whether that makes sense together."""

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from osmosis_ai.rollout.core.loading import split_name
from osmosis_ai.rollout.core.text import bare_url
from osmosis_ai.rollout.core.user_errors import UsageError
from osmosis_ai.rollout.run import defaults
from osmosis_ai.rollout.run.agents import check_naming
from osmosis_ai.rollout.run.comparing_code import agent_scores_by_is_right
from osmosis_ai.rollout.run.results.inputs import inputs_of

_AT_LEAST = {
    **dict.fromkeys(("n_runs", "batch_size", "limit"), 1),
    "offset": 0,
    **dict.fromkeys(("max_turns", "max_tokens", "concurrency", "repeat"), 1),
    "row": 0,
}
_FINITE = ("temperature", "min_reward", "pass_threshold", "timeout")
_FLAGS = {"n_runs": "--n", "as_json": "--json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What ``osmosis test``, ``eval`` and ``trainer`` share. Indices count from 0 in the file; times are in seconds."""

    _CODE: ClassVar[tuple[str, ...]] = ("module", "policy", "reward")
    """Options that name code as ``module:attribute``."""
    _MODELS: ClassVar[tuple[str, ...]] = ("name", "base_url")
    _SETTINGS: ClassVar[tuple[str, ...]] = (
        "module",
        "mcp",
        "reward",
        "columns",
        "offset",
        "max_turns",
        "completion_params",
    )
    """What else results depend on; not ``limit`` and the runs of a row: with larger ones a run is gone on with."""

    module: str | None = None
    mcp: str | None = None
    reward: str | None = None
    dataset: str = ""
    columns: str | None = None
    strict: bool = False
    model: str = defaults.MODEL
    policy: str | None = None
    limit: int | None = None
    offset: int = 0
    api_key: str | None = None
    base_url: str | None = None
    max_turns: int = defaults.MAX_TURNS
    max_tokens: int | None = None
    temperature: float | None = None
    timeout: float | None = defaults.RUN_TIMEOUT_SECONDS
    output: str | None = None
    resume: bool = False
    as_json: bool = False
    quiet: bool = False
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
    def sampling(self) -> dict[str, Any]:
        """What the requests say of sampling.

        A script samples nothing, and is told all the same: so an agent is noticed that does not pass it on.
        """
        if self.completion_params:
            return self.completion_params
        from osmosis_ai.rollout.run.models.choice import is_builtin

        is_script = self.policy is not None or is_builtin(self.model, self.base_url)
        return {"temperature": 1.0} if is_script else {}

    def inputs(self) -> dict[str, Any]:
        """What results depend on, with digests of files: they are only gone on with if all of it is the same."""
        models = {name: getattr(self, name) for name in self._MODELS}
        return inputs_of(
            self.dataset,
            modules=self._code(),
            mcp=self.mcp,
            model={name: bare_url(value) if name.endswith("_url") else value for name, value in models.items()},
            settings={name: getattr(self, name) for name in self._SETTINGS},
        )

    @property
    def name(self) -> str:
        """Of the model, or of the script in its place."""
        return self.policy or self.model.strip()

    @property
    def runs_all_or_none(self) -> bool:
        """Whether a row that cannot be used keeps the others from running."""
        return self.strict

    @property
    def scores_by_is_right(self) -> bool:
        """Whether the code that gives rewards comes to ``is_right``; nothing is run to find out."""
        return agent_scores_by_is_right(self.module, self.mcp, self.reward)

    @property
    def reads_results(self) -> bool:
        """Whether what is printed or written at the end is made of all records."""
        return bool(self.output) or self.as_json

    @property
    def is_silent(self) -> bool:
        """Whether standard output is not for people."""
        return self.as_json or self.quiet

    def check(self) -> None:
        """See that the options fit together.

        Raises:
            UsageError: they do not; the first thing that is wrong, in a sentence.
        """
        self._check_agent()
        for name in self._code():
            split_name(name)
        if problem := self._combination_problem() or self._number_problem():
            raise UsageError(problem)

    def _check_agent(self) -> None:
        check_naming(self.module, self.mcp, self.reward)

    def _code(self) -> list[str]:
        given = [getattr(self, name) or () for name in self._CODE]
        return [path for paths in given for path in ([paths] if isinstance(paths, str) else paths)]

    def _combination_problem(self) -> str | None:
        default = next(field.default for field in fields(self) if field.name == "model")
        if self.policy is not None and (self.model != default or self.base_url is not None):
            return "--policy stands in for a model: leave out --model and --base-url."
        if self.resume and not self.output:
            return "--resume needs -o FILE: the results of the run to go on with."
        return None

    def _number_problem(self) -> str | None:
        for name, least in _AT_LEAST.items():
            value = getattr(self, name, None)
            if value is not None and value < least:
                return f"{flag_of(name)} must be >= {least}."
        if self.timeout is not None and not self.timeout > 0:
            return "--timeout must be > 0."
        for name in _FINITE:
            value = getattr(self, name, None)
            if value is not None and not math.isfinite(value):
                return f"{flag_of(name)} must be a finite number."
        return None


def flag_of(name: str) -> str:
    """The flag of an option, by its name."""
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")


def build_completion_params(temperature: float | None, max_tokens: int | None) -> dict[str, Any]:
    """Sampling settings for the model: what is not ``None``."""
    given = {"temperature": temperature, "max_tokens": max_tokens}
    return {name: value for name, value in given.items() if value is not None}
