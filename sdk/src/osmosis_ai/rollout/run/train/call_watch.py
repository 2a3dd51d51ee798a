"""What only the trainer's side of a rollout's chat calls shows: why it may have scored 0, and what failed."""

from typing import Any

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.results import Outcome
from osmosis_ai.rollout.run.errors import ProviderError
from osmosis_ai.rollout.run.zero_reasons import zero_reason
from osmosis_ai.rollout.trainer.errors import CallRefusedError
from osmosis_ai.rollout.trainer.vocabulary import ChatCall, Completer, RolloutOutcome


class CallWatch:
    """A completer that remembers, until it is asked, how the last chat call of each rollout ended."""

    def __init__(self, complete: Completer) -> None:
        self._complete = complete
        self._last: dict[str, tuple[str, list[dict[str, Any]]]] = {}
        self._failed: dict[str, str] = {}

    async def __call__(self, call: ChatCall) -> CompletionsResult:
        """The reply, as it is."""
        self._failed.pop(call.rollout_id, None)
        try:
            result = await self._complete(call)
        except CallRefusedError as error:
            if isinstance(error.__cause__, ProviderError):
                self._failed[call.rollout_id] = error.__cause__.failure.value
            raise
        self._last[call.rollout_id] = (result.finish_reason, call.tools)
        return result

    def zero_reason(self, outcome: RolloutOutcome) -> str | None:
        """What else than a wrong answer may have cost a rollout its reward, if anything shows; asked once."""
        ended_with, tools = self._last.pop(outcome.request.rollout_id, (None, []))
        if outcome.reward is None or outcome.reward > 0 or outcome.result is None:
            return None
        messages = outcome.result.final_messages
        names = [name for tool in tools if isinstance(name := (tool.get("function") or {}).get("name"), str)]
        is_known = bool(messages) and not outcome.tool_calls
        return zero_reason((ended_with, outcome.finish_reason), messages, names if is_known else [])

    def error_kind(self, outcome: RolloutOutcome) -> str | None:
        """Why the model, or the script in its place, gave no answer, where that ended a rollout; asked once."""
        failed = self._failed.pop(outcome.request.rollout_id, None)
        said = outcome.result.extra_fields.get("outcome") if outcome.result else None
        return failed if said == Outcome.LLM_ERROR.value else None
