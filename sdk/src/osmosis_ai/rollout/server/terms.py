"""What a start of 0.3 asks beyond an init; a rollout without terms is one of 0.2."""

from dataclasses import dataclass, field
from typing import Any

PULL = "pull:"
"""Begins the journal's keys of rollouts whose trainer fetches the result."""


def pull_key(rollout_id: str) -> str:
    """The key under which a start is accepted once."""
    return PULL + rollout_id


def is_pulled(key: str) -> bool:
    """Whether the trainer fetches the result of the record under ``key``."""
    return key.startswith(PULL)


@dataclass(slots=True)
class Terms:
    """Those of one rollout."""

    fingerprint: str
    """Of what was asked, but for the key of the chat calls."""
    reply: bytes = field(repr=False)
    """Body of the 202, but for the lease's token."""
    label: str | None = None
    grade: bool = True
    """Whether a reward is asked for."""
    agent_seconds: float | None = None
    """Limit of the agent's run, without the time in the queue, without grading. Like the other, 0 to the server's."""
    grader_seconds: float | None = None
    """Limit of the reward functions and judges of the run, all together."""
    tools: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """What is told to the policy with each call."""


def summary_of_pulled(body: dict[str, Any]) -> dict[str, Any]:
    """What the status of a rollout tells of its result, for a ``body`` of 0.3."""
    sample = body["sample"] or {}
    return {
        "status": body["status"],
        "finish_reason": sample.get("extra_fields", {}).get("finish_reason"),
        "outcome": sample.get("extra_fields", {}).get("outcome", body["err_category"] or body["status"]),
        "reward": sample.get("reward"),
        "error_message": body["err_message"],
        "num_messages": len(sample.get("messages", ())),
    }
