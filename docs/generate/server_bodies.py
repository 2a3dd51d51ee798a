"""What the server answers with: bodies that it makes without a model, so that only their schemas need one."""

from typing import Any, Literal

from pydantic import BaseModel

from osmosis_ai.rollout.core.results import Outcome
from osmosis_ai.rollout.core.schemas import RolloutStatus


class InvalidField(BaseModel):
    """One thing that is wrong with the body of an init."""

    type: str
    loc: list[str | int]
    msg: str


class ErrorBody(BaseModel):
    """Body of every refusal (4xx, 5xx)."""

    detail: str | list[InvalidField]
    code: str | None = None


class Health(BaseModel):
    """Body of ``GET /health`` and ``GET /platform/health``."""

    status: Literal["healthy"]
    agent_loop: str
    active_rollouts: int
    completed_rollouts: int
    concurrency: dict[str, int] | None = None
    instance_id: str | None = None
    process_id: str | None = None
    lifecycle: dict[str, Any] | None = None


class Ready(BaseModel):
    """Body of ``GET /ready``: 200 with true, 503 with false."""

    ready: bool
    code: Literal["journal_unavailable"] | None = None


class ResultView(BaseModel):
    """A result in short."""

    status: RolloutStatus
    finish_reason: str | None
    outcome: Outcome
    reward: float | None
    error_message: str | None
    num_messages: int


class RolloutView(BaseModel):
    """Body of ``GET /v1/rollout/{rollout_id}``."""

    rollout_id: str
    state: Literal["queued", "running", "recording", "accepted", "finished", "delivered", "undeliverable"]
    accepted_at: float
    started_at: float | None = None
    finished_at: float | None = None
    settled_at: float | None = None
    delivery_attempts: int = 0
    last_error: str | None = None
    result: ResultView | None = None


class Cancelling(BaseModel):
    """Body of the 202 of ``POST /v1/rollout/{rollout_id}/cancel``."""

    rollout_id: str
    state: Literal["cancelling"]


class CancellingMany(BaseModel):
    """Body of the 202 of ``POST /v1/rollout/cancel``."""

    cancelling: int
