"""``POST /v1/rollout/completed``: terminal results, each taken once.

A repeat of a result is acknowledged and dropped, because delivery is at least once; another result for the same
rollout is refused with 409. See ``docs/protocol.md``, section 5.2.
"""

import json
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from osmosis_ai.rollout.core.schemas import RolloutResponse
from osmosis_ai.rollout.trainer.book import Delivery, RolloutBook
from osmosis_ai.rollout.trainer.callback_http import (
    CallbackRefusedError,
    check_key,
    json_response,
    read_json_object,
    validated,
)
from osmosis_ai.rollout.trainer.vocabulary import TrainerLimits

_REFUSALS: dict[Delivery, tuple[HTTPStatus, str, str]] = {
    Delivery.UNKNOWN: (
        HTTPStatus.NOT_FOUND,
        "unknown_rollout",
        "rollout_id: no rollout of this id was started here.",
    ),
    Delivery.CONTRADICTED: (
        HTTPStatus.CONFLICT,
        "contradicting_result",
        "rollout_id: this rollout has another result already.",
    ),
}


class CompletionSink:
    """The route's handler."""

    def __init__(self, book: RolloutBook, callback_key: str, limits: TrainerLimits) -> None:
        self._book = book
        self._callback_key = callback_key
        self._limits = limits

    async def handle(self, request: Request) -> Response:
        """Take one terminal result."""
        check_key(request, self._callback_key)
        body = await read_json_object(request, self._limits.max_body_bytes)
        result = validated(RolloutResponse, body)
        delivery = self._book.deliver(result, _canonical_json(body))
        if delivery in _REFUSALS:
            raise CallbackRefusedError(*_REFUSALS[delivery])
        return json_response({"status": "ok", "delivery": delivery.value})


def _canonical_json(body: dict[str, Any]) -> bytes:
    try:
        return json.dumps(body, sort_keys=True).encode()
    except RecursionError:
        raise CallbackRefusedError(HTTPStatus.BAD_REQUEST, "invalid_json", "The body is nested too deeply.") from None
