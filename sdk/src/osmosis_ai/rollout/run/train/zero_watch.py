"""Why a rollout may have scored 0: what its chat calls have shown by its end, as ``test`` and ``eval`` tell it."""

from typing import Any

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.run.zero_reasons import zero_reason
from osmosis_ai.rollout.trainer.vocabulary import ChatCall, Completer, RolloutOutcome


class ZeroWatch:
    """A completer that remembers, until ``reason`` is asked, how the last reply of each rollout ended."""

    def __init__(self, complete: Completer) -> None:
        self._complete = complete
        self._last: dict[str, tuple[str, list[dict[str, Any]]]] = {}

    async def __call__(self, call: ChatCall) -> CompletionsResult:
        """The reply, as it is."""
        result = await self._complete(call)
        self._last[call.rollout_id] = (result.finish_reason, call.tools)
        return result

    def reason(self, outcome: RolloutOutcome) -> str | None:
        """What else than a wrong answer may have cost a rollout its reward, if anything shows; asked once."""
        ended_with, tools = self._last.pop(outcome.request.rollout_id, (None, []))
        if outcome.reward is None or outcome.reward > 0 or outcome.result is None:
            return None
        messages = outcome.result.final_messages
        names = [name for tool in tools if isinstance(name := (tool.get("function") or {}).get("name"), str)]
        is_known = bool(messages) and not outcome.tool_calls
        return zero_reason((ended_with, outcome.finish_reason), messages, names if is_known else [])
