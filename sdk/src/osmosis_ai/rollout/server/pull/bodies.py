"""The bodies of 0.3. A start is read once: into the agent's request, and the terms that an init does not have.

Names, types and defaults are those of the published types of osmosis-ai 0.3.8. What cannot come to an end is refused
here, as for an init: an address that our client would not call, a key that no header can carry.
"""

import hashlib
import json
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import to_json

from osmosis_ai.rollout.core.schemas import (
    MessageDict,
    RolloutId,
    RolloutRequest,
)
from osmosis_ai.rollout.server.requests import RefusedError, check_request, parsed
from osmosis_ai.rollout.server.terms import Terms

GROUND_TRUTH = "ground_truth"
_OF_AN_INIT = ("completion_params", "max_turns", "max_tokens_total")
"""What a start may bring in ``extra_fields``, as 0.3 has no place of its own for it."""
_NOT_ASKED = frozenset({"rollout_id", "llm_api_key"})


class PullStatus(StrEnum):
    """Where a rollout of 0.3 stands."""

    QUEUED = "queued"
    RUNNING = "running"
    GRADING = "grading"
    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"


class ErrorCategory(StrEnum):
    """Why a rollout of 0.3 failed."""

    TIMEOUT = "timeout"
    LEASE_EXPIRED = "lease_expired"
    VALIDATION_ERROR = "validation_error"
    HTTP_ERROR = "http_error"
    AGENT_ERROR = "agent_error"
    INTERNAL_ERROR = "internal_error"


def _one_segment(rollout_id: str) -> str:
    if rollout_id in (".", "..") or not rollout_id.isprintable() or {"/", "\\"} & set(rollout_id):
        raise ValueError("rollout_id must be one segment of a path: without separators, and neither . nor ..")
    return rollout_id


class StartRequest(BaseModel):
    """Body of ``POST /rollout``. Unknown fields are ignored."""

    model_config = ConfigDict(hide_input_in_errors=True)

    rollout_id: Annotated[RolloutId, AfterValidator(_one_segment)]
    initial_messages: list[MessageDict]
    chat_completions_url: str
    llm_api_key: str | None = Field(default=None, repr=False)
    label: str | None = None
    metadata: dict[str, Any] | None = None
    grade: bool = True
    agent_timeout_sec: float | None = None
    grader_timeout_sec: float | None = None
    extra_fields: dict[str, Any] | None = None


class StartReply(BaseModel):
    """Body of the 202."""

    rollout_id: str
    status: PullStatus
    polling_lease_token: str = Field(min_length=1, repr=False)
    result_wait_timeout_sec: float
    polling_lease_timeout_sec: float


class Sample(BaseModel):
    """The conversation of a rollout, and what it is worth."""

    messages: list[MessageDict]
    label: str | None = None
    reward: float | None = None
    remove_sample: bool = False
    metrics: dict[str, Any] = Field(default_factory=dict)
    extra_fields: dict[str, Any] = Field(default_factory=dict)


class ResultReply(BaseModel):
    """Body of a poll's 200: the result, or where the rollout stands."""

    rollout_id: str
    status: PullStatus
    sample: Sample | None = None
    err_message: str | None = None
    err_category: ErrorCategory | None = None


class CancelRollouts(BaseModel):
    """Body of ``POST /rollout/cancel``: exactly one of the three."""

    ids: list[str] | None = None
    prefix: str | None = None
    all: bool = False


class CancelReply(BaseModel):
    """What became of each id."""

    dispositions: dict[str, str]


class Start(NamedTuple):
    """A start as the server takes it."""

    request: RolloutRequest
    terms: Terms
    body: bytes
    """As an init's, without the key: what an interrupted rollout is reported from."""


def parse_start(
    body: bytes, allowed_hosts: frozenset[str], wait_seconds: float, lease_seconds: float, longest_seconds: float
) -> Start:
    """The start in ``body``; ``longest_seconds`` bounds both limits that it may ask for.

    Raises:
        RefusedError: 422 with FastAPI's ``detail`` list, which names the field and leaves the input out.
    """
    start = parsed(StartRequest, body)
    extra = start.extra_fields or {}
    metadata = dict(start.metadata or {})
    if start.label is not None:
        metadata[GROUND_TRUTH] = start.label
    fields = {name: extra[name] for name in _OF_AN_INIT if extra.get(name) is not None}
    fields |= {
        "rollout_id": start.rollout_id,
        "server_url": start.chat_completions_url,
        "messages": start.initial_messages,
        "completion_params": fields.get("completion_params", {}),
        "metadata": metadata,
        "api_key": start.llm_api_key or None,
    }
    try:
        request = check_request(fields, allowed_hosts)
    except RefusedError as error:
        raise _in_their_names(error) from None
    reply = {
        "rollout_id": start.rollout_id,
        "status": PullStatus.QUEUED.value,
        "result_wait_timeout_sec": wait_seconds,
        "polling_lease_timeout_sec": lease_seconds,
    }
    terms = Terms(
        _fingerprint(start),
        to_json(reply),
        start.label,
        start.grade,
        _bounded(start.agent_timeout_sec, longest_seconds),
        _bounded(start.grader_timeout_sec, longest_seconds),
    )
    return Start(request, terms, to_json(request.model_dump(exclude={"api_key"})))


def _bounded(asked: float | None, longest_seconds: float) -> float | None:
    return None if asked is None else min(max(asked, 0.0), longest_seconds)


def parse_cancel(body: bytes) -> CancelRollouts:
    """The request in ``body``.

    Raises:
        RefusedError: 422.
    """
    asked = parsed(CancelRollouts, body)
    if (asked.ids is not None) + (asked.prefix is not None) + asked.all != 1:
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, 'Give exactly one of "ids", "prefix" and "all".')
    return asked


_THEIR_NAMES = {
    "server_url": "chat_completions_url",
    "messages": "initial_messages",
    "api_key": "llm_api_key",
    **{name: f"extra_fields.{name}" for name in _OF_AN_INIT},
}


def _in_their_names(error: RefusedError) -> RefusedError:
    """``error`` about an init, in the names of a start."""
    if isinstance(error.detail, str):
        return error
    details = []
    for item in error.detail:
        where, message = list(item["loc"]), item["msg"]
        if len(where) > 1 and where[1] in _THEIR_NAMES:
            message = message.replace(where[1], _THEIR_NAMES[where[1]])
            where[1:2] = _THEIR_NAMES[where[1]].split(".")
        details.append({**item, "loc": where, "msg": message})
    return RefusedError(error.status_code, details, error.code)


def _fingerprint(start: StartRequest) -> str:
    asked = start.model_dump(exclude=set(_NOT_ASKED))
    try:
        return hashlib.sha256(json.dumps(asked, sort_keys=True, allow_nan=False).encode()).hexdigest()
    except ValueError as error:
        detail = [{"type": "json_invalid", "loc": ["body"], "msg": f"A number is too large: {error}"}]
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from None
