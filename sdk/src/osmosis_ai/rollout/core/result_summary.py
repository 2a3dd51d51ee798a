"""What is told of a result beside the result itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResultSummary:
    """What logs, metrics and views tell of a result."""

    status: str
    finish_reason: str | None
    outcome: str
    reward: float | None = None
    error_message: str | None = None
