"""The agent's own reward as the score, where no eval function is named."""

from collections.abc import Iterable, Mapping
from typing import Any

from osmosis_ai.rollout.core.reward_parts import known_components
from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.run.evaluate.eval_fn import EvalFnWrapper
from osmosis_ai.rollout.run.evaluate.eval_results import EvalRunResult

NAME = "reward"
RUNS_WITHOUT = 8
"""That ended without a reward before any had one: then the rest is not paid for."""
ADVICE = (
    "The agent gives no reward, and no --eval-fn scores it: name a function (--eval-fn module:function), or end run"
    " with ctx.complete(messages, reward=...); with --mcp it is --reward module:function."
)


def own_reward() -> EvalFnWrapper:
    """The eval function that gives what the agent gave."""
    return EvalFnWrapper(_given, NAME)


class RewardExpected:
    """Sees that there is something to score by; ``earlier`` runs count."""

    def __init__(self, earlier: Iterable[EvalRunResult] = ()) -> None:
        self._is_met = any(run.reward is not None for run in earlier)
        self._without = 0

    def add(self, run: EvalRunResult) -> None:
        """Count one run.

        Raises:
            CLIError: so many have ended, and none had a reward.
        """
        self._is_met |= run.reward is not None
        self._without += run.success and run.reward is None
        if self._without >= RUNS_WITHOUT:
            self.check()

    def check(self) -> None:
        """What can be said at the end.

        Raises:
            CLIError: no run had a reward.
        """
        if self._without and not self._is_met:
            raise CLIError(ADVICE)


def _given(result: Mapping[str, Any]) -> dict[str, Any] | None:
    if result.get("reward") is None:
        return None
    return {**known_components(result.get("extra_fields")), "reward": result["reward"]}
