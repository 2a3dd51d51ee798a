"""The one result of a rollout as 0.3 says it: made once, recorded, and sent as it is.

A rollout of which a reward was asked and that has none is a failure there, with its conversation; so is one whose
grading took too long, or failed.
"""

from typing import Any

from osmosis_ai.rollout.core.jsonable import strict_json
from osmosis_ai.rollout.core.result_summary import ResultSummary
from osmosis_ai.rollout.core.results import GRADER_TIMEOUT, Outcome, Stop, TerminalResult
from osmosis_ai.rollout.core.reward_parts import REWARD_COMPONENTS
from osmosis_ai.rollout.core.schemas import RolloutStatus
from osmosis_ai.rollout.server.pull.bodies import ErrorCategory, PullStatus
from osmosis_ai.rollout.server.terms import Terms

NO_REWARD = "the agent gave no reward"

_CATEGORIES = {
    Outcome.AGENT_ERROR: ErrorCategory.AGENT_ERROR,
    Outcome.TOOL_ERROR: ErrorCategory.AGENT_ERROR,
    Outcome.LLM_ERROR: ErrorCategory.HTTP_ERROR,
    Outcome.REWARD_ERROR: ErrorCategory.VALIDATION_ERROR,
    Outcome.INVALID_RESULT: ErrorCategory.VALIDATION_ERROR,
    Outcome.TIMEOUT: ErrorCategory.TIMEOUT,
    Outcome.INTERRUPTED: ErrorCategory.INTERNAL_ERROR,
}


def as_pulled(rollout_id: str, result: TerminalResult, terms: Terms | None) -> TerminalResult:
    """``result`` in the form of 0.3; without ``terms``, that of a rollout that this process never ran.

    What cannot be read again (a number of thousands of digits, objects nested a thousand deep) is a failure too.
    """
    try:
        return _pulled(result, terms)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        message = f"invalid result: it cannot be written as one of 0.3 ({type(error).__name__})"
        body = _body(rollout_id, PullStatus.FAILURE, None, message, ErrorCategory.VALIDATION_ERROR)
        outcome = Outcome.INVALID_RESULT.value
        return TerminalResult(
            strict_json(body), ResultSummary(RolloutStatus.ERROR.value, "error", outcome, None, message)
        )


def _pulled(result: TerminalResult, terms: Terms | None) -> TerminalResult:
    fields = result.payload
    extra: dict[str, Any] = fields["extra_fields"]
    summary = result.summary
    status, category, sampled = PullStatus.SUCCESS, None, True
    if terms is not None and not terms.grade:
        fields.pop("reward", None)
        extra.pop(REWARD_COMPONENTS, None)
    if summary.status == RolloutStatus.COMPLETED:
        if fields.get("reward") is None and terms is not None and terms.grade:
            status, category, message = PullStatus.FAILURE, ErrorCategory.VALIDATION_ERROR, NO_REWARD
            summary = ResultSummary(
                RolloutStatus.ERROR.value, summary.finish_reason, Outcome.REWARD_ERROR.value, None, message
            )
            extra["outcome"] = Outcome.REWARD_ERROR.value
    elif summary.finish_reason == Stop.LEASE_EXPIRED.value.finish_reason:
        status, category, sampled = PullStatus.FAILURE, ErrorCategory.LEASE_EXPIRED, False
    elif summary.outcome == Outcome.CANCELLED and summary.finish_reason == Stop.CANCELLED.value.finish_reason:
        status, sampled = PullStatus.CANCELLED, False
    else:
        outcome = Outcome(summary.outcome)
        status, category = PullStatus.FAILURE, _CATEGORIES.get(outcome, ErrorCategory.INTERNAL_ERROR)
        sampled = outcome is Outcome.REWARD_ERROR or summary.finish_reason == GRADER_TIMEOUT
    sample = {
        "messages": fields["final_messages"],
        "label": None if terms is None else terms.label,
        "reward": fields.get("reward"),
        "remove_sample": False,
        "metrics": fields.get("metrics") or {},
        "extra_fields": {"finish_reason": fields.get("finish_reason"), **extra},
    }
    body = _body(fields["rollout_id"], status, sample if sampled else None, summary.error_message, category)
    return TerminalResult(strict_json(body), summary)


def _body(
    rollout_id: str,
    status: PullStatus,
    sample: dict[str, Any] | None,
    message: str | None,
    category: ErrorCategory | None,
) -> dict[str, Any]:
    return {
        "rollout_id": rollout_id,
        "status": status.value,
        "sample": sample,
        "err_message": message,
        "err_category": category,
    }
