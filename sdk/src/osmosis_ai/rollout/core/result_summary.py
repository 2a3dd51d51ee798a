"""What is told of a result beside the result itself."""

from dataclasses import dataclass

SAMPLING_IGNORED = "sampling_ignored"
"""Where a result (``extra_fields``) and a record of a results file name parameters that chat calls left out."""


@dataclass(frozen=True, slots=True)
class ResultSummary:
    """What logs, metrics and views tell of a result."""

    status: str
    finish_reason: str | None
    outcome: str
    reward: float | None = None
    error_message: str | None = None
