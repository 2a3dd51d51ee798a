"""Asking an agent for its tools, and refusing what could not be served.

``get_tools`` runs off the event loop: what it costs is the author's affair. What it returns is held to the very rules
that ``osmosis validate`` checks, and encoded; both are done once for tools that stay the same, to the letter.
"""

import json
import logging
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.schemas import (
    InitResponse,
    OpenAIFunctionParametersSchema,
    OpenAIFunctionPropertySchema,
    OpenAIFunctionSchema,
    OpenAIFunctionToolSchema,
    RolloutRequest,
)
from osmosis_ai.rollout.core.validator import check_tools
from osmosis_ai.rollout.server.requests import RefusedError
from osmosis_ai.rollout.server.short_calls import ShortCalls

logger = logging.getLogger(__name__)

MAX_REASON_LENGTH = 500
MAX_KNOWN_OFFERS = 64
MAX_KNOWN_CHARACTERS = 262_144
"""Of one offer; longer ones are checked and encoded each time."""

_PLAIN_MODELS = frozenset(
    {OpenAIFunctionToolSchema, OpenAIFunctionSchema, OpenAIFunctionParametersSchema, OpenAIFunctionPropertySchema}
)


class ToolOffer:
    """The tools of ``agent_loop``; belongs to one event loop."""

    def __init__(self, agent_loop: RolloutAgentLoop, timeout_seconds: float) -> None:
        self._agent_loop = agent_loop
        self._timeout_seconds = timeout_seconds
        self._calls = ShortCalls()
        self._known: dict[str, bytes] = {}

    async def make(self, rollout_id: str, request: RolloutRequest) -> tuple[bytes, list[OpenAIFunctionToolSchema]]:
        """The body of the reply to an init, and the tools as the agent gave them.

        Raises:
            RefusedError: 500 with the reason, in a sentence.
        """
        seconds = self._timeout_seconds
        try:
            tools, encoded = await self._calls.call(self._ask, request, limit_seconds=seconds)
        except RefusedError as error:
            logger.error("Init of %a refused: %s", rollout_id, error.detail)
            raise
        except TimeoutError as error:
            raise _failed(f"get_tools did not return within {seconds:g} s", error) from error
        except Exception as error:
            raise _failed(f"{type(error).__name__}: {error}", error) from error
        # Spliced: one offer is encoded once for all inits.
        return b'{"rollout_id":%b,"tools":%b}' % (to_json(rollout_id), encoded), tools

    def _ask(self, request: RolloutRequest) -> tuple[list[OpenAIFunctionToolSchema], bytes]:
        """The tools, and how they are written on the wire. Runs in a thread."""
        tools = self._agent_loop.get_tools(request)
        text = _text_of(tools)
        encoded = self._known.get(text) if text is not None else None
        if encoded is None:
            encoded = _check_and_encode(tools, self._agent_loop.get_tools)
            if text is not None and len(self._known) < MAX_KNOWN_OFFERS:
                self._known[text] = encoded
        return tools, encoded


def _check_and_encode(tools: Any, get_tools: Any) -> bytes:
    if problems := check_tools(tools, get_tools):
        raise _refusal(str(problems[0]))
    offer = InitResponse.model_validate({"rollout_id": "", "tools": tools})
    return offer.model_dump_json(include={"tools"}, exclude_none=True).encode().removeprefix(b'{"tools":')[:-1]


def _text_of(tools: Any) -> str | None:
    """A text that two lists of tools share only if they look the same on the wire; ``None`` if that is not sure."""
    # `type() is`, here and below: a subclass may look different on the wire.
    if type(tools) is not list:
        return None
    try:
        text = json.dumps([(type(tool) is dict, tool) for tool in tools], default=_fields_of)
    except (TypeError, ValueError, RecursionError):
        return None
    return text if len(text) <= MAX_KNOWN_CHARACTERS else None


def _fields_of(model: Any) -> dict[str, Any]:
    if type(model) not in _PLAIN_MODELS:
        raise TypeError
    fields: dict[str, Any] = model.__dict__
    return fields | model.__pydantic_extra__ if model.__pydantic_extra__ else fields


def _failed(reason: str, error: Exception) -> RefusedError:
    logger.error("Init refused, as the agent's tools cannot be offered: %s", reason, exc_info=error)
    return _refusal(reason)


def _refusal(reason: str) -> RefusedError:
    return RefusedError(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        f"The agent's tools cannot be offered: {reason[:MAX_REASON_LENGTH]}",
        "get_failed",
    )
