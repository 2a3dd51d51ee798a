"""What a rollout came to.

Its result decides where there is one, then a cancellation, then a restart of the server; what the trainer saw (refused,
no result in time) stands only where there is none of these.
"""

from osmosis_ai.rollout.core.schemas import RolloutStatus
from osmosis_ai.rollout.trainer.book import Rollout
from osmosis_ai.rollout.trainer.vocabulary import Ending, RolloutOutcome


def outcome_of(
    rollout: Rollout, ending: Ending, problem: str | None, latency_seconds: float, *, is_systemic: bool = False
) -> RolloutOutcome:
    """The outcome of ``rollout``; ``ending`` and ``problem`` are what the trainer saw."""
    result = rollout.result
    if result is not None and result.status is RolloutStatus.COMPLETED:
        ending, problem = Ending.COMPLETED, None
    elif result is not None:
        ending, problem = Ending.ERROR, result.error_message or "The server reported ERROR without a message."
        if result.extra_fields.get("outcome") == "llm_error":
            problem = rollout.policy_failure or problem  # the cause, which the server has only been told of
    elif rollout.is_cancelled:
        ending, problem = Ending.CANCELLED, "The trainer cancelled it."
    elif rollout.is_lost:
        ending, problem = Ending.LOST, "The server was started again and did not report this rollout."
    return RolloutOutcome(
        request=rollout.request,
        outcome=ending,
        result=result,
        problem=problem,
        turns=rollout.turns,
        tool_calls=rollout.tool_calls,
        latency_seconds=latency_seconds,
        rewrites=rollout.rewrites,
        weights_versions=tuple(rollout.weights_versions),
        tokens=tuple(rollout.tokens.turns),
        is_systemic=is_systemic,
    )
