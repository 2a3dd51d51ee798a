"""Asking an agent for its tools, and refusing what could not be served.

``get_tools`` runs off the event loop, in a thread: what it costs is the author's affair. What it returns is held to the
very rules that ``osmosis validate`` checks.
"""

import asyncio
import logging
from http import HTTPStatus

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.schemas import InitResponse, OpenAIFunctionToolSchema, RolloutRequest
from osmosis_ai.rollout.server.offload import call_in_thread
from osmosis_ai.rollout.server.requests import RefusedError
from osmosis_ai.rollout.validator import check_tools

logger = logging.getLogger(__name__)

MAX_THREADS = 8
MAX_REASON_LENGTH = 500


class ToolOffer:
    """The tools of ``agent_loop``, asked for one request at a time in at most ``MAX_THREADS`` threads."""

    def __init__(self, agent_loop: RolloutAgentLoop, timeout_seconds: float) -> None:
        self._agent_loop = agent_loop
        self._timeout_seconds = timeout_seconds
        self._gate = asyncio.Semaphore(MAX_THREADS)

    async def make(
        self, rollout_id: str, request: RolloutRequest
    ) -> tuple[InitResponse, list[OpenAIFunctionToolSchema]]:
        """The reply to an init, and the tools as the agent gave them.

        Raises:
            RefusedError: 500 with the reason, in a sentence.
        """
        seconds = self._timeout_seconds
        try:
            async with self._gate, asyncio.timeout(seconds):
                tools = await call_in_thread(self._agent_loop.get_tools, request)
            if problems := check_tools(tools):
                raise _failed(str(problems[0]))
            response = InitResponse.model_validate({"rollout_id": rollout_id, "tools": tools})
        except RefusedError:
            raise
        except TimeoutError as error:
            raise _failed(f"get_tools did not return within {seconds:g} s", error) from error
        except Exception as error:
            raise _failed(f"{type(error).__name__}: {error}", error) from error
        return response, tools


def _failed(reason: str, error: Exception | None = None) -> RefusedError:
    logger.error("Init refused, as the agent's tools cannot be offered: %s", reason, exc_info=error)
    return RefusedError(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        f"The agent's tools cannot be offered: {reason[:MAX_REASON_LENGTH]}",
        "get_failed",
    )
