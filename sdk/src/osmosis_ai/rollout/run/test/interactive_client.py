"""A model client that stops after every reply, for a debugger to look at it and to change it."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum
from types import TracebackType
from typing import Any, Self

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import MessageDict
from osmosis_ai.rollout.run.models.replies import consistent_finish_reason
from osmosis_ai.rollout.run.models.wrapped import WrappedClient

ABORTED = "Aborted by user"


@dataclass
class InteractiveStep:
    """One reply, before the agent gets it; what ``on_step`` changes in ``message`` is what the agent gets.

    ``turn`` counts from 1; ``step_type`` is ``"llm_response"``.
    """

    turn: int
    step_type: str
    message: MessageDict | None = None
    tool_calls: list[dict[str, Any]] | None = None
    finish_reason: str | None = None


class StepDecision(Enum):
    """What to do after a step, where true and false are not enough."""

    ASK_AGAIN = "ask again"
    """Ask the model once more, with the messages as they have been edited."""


OnStep = Callable[[InteractiveStep], bool | StepDecision | Awaitable[bool | StepDecision]]


class InteractiveLLMClient(WrappedClient):
    """``wrapped_client`` with a stop after each reply.

    Args:
        on_step: told of each reply, plain or async; false aborts the run.
        on_messages_updated: told of the messages before each call.
    """

    def __init__(
        self,
        wrapped_client: Any,
        on_step: OnStep,
        on_messages_updated: Callable[[list[MessageDict]], None] | None = None,
    ) -> None:
        super().__init__(wrapped_client)
        self._on_step = on_step
        self._on_messages_updated = on_messages_updated
        self._turn = 0
        self.is_aborted = False
        """Whether the user has ended the run, even if the agent did not take notice."""
        self._edits: dict[int, tuple[MessageDict, MessageDict]] = {}

    def reset_metrics(self) -> None:
        """Set the counters to zero, turns included, and forget an abort and all edits."""
        self._turn = 0
        self.is_aborted = False
        self._edits = {}
        super().reset_metrics()

    async def __aenter__(self) -> Self:
        await self._wrapped.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._wrapped.__aexit__(exc_type, exc, traceback)

    async def chat_completions(self, messages: list[MessageDict], **kwargs: Any) -> CompletionsResult:
        """The next message, once the user lets it pass.

        Raises:
            InterruptedError: the user has aborted the run.
        """
        if self.is_aborted:
            raise InterruptedError(ABORTED)
        self._turn += 1
        while True:
            outgoing = self.with_edits(messages)
            if self._on_messages_updated is not None:
                self._on_messages_updated(outgoing)
            result: CompletionsResult = await self._wrapped.chat_completions(outgoing, **kwargs)
            step = InteractiveStep(
                turn=self._turn,
                step_type="llm_response",
                message=result.message,
                tool_calls=result.message.get("tool_calls"),
                finish_reason=result.finish_reason,
            )
            decision = self._on_step(step)
            if inspect.isawaitable(decision):
                decision = await decision
            if decision is StepDecision.ASK_AGAIN:
                continue
            if not decision:
                self.is_aborted = True
                raise InterruptedError(ABORTED)
            return _edited(result, step.message)

    def edit_message(self, index: int, original: MessageDict, edited: MessageDict) -> None:
        """Send ``edited`` in the place of message ``index`` from now on."""
        first, _ = self._edits.get(index, (original, None))
        self._edits[index] = (first, edited)

    def with_edits(self, messages: list[MessageDict]) -> list[MessageDict]:
        """``messages`` as the model sees them; the very list if nothing was edited."""
        if not self._edits:
            return messages
        edited = list(messages)
        for index, (original, replacement) in self._edits.items():
            if index < len(edited) and edited[index] == original:
                edited[index] = replacement
        return edited


def _edited(result: CompletionsResult, message: MessageDict | None) -> CompletionsResult:
    if message is None or message is result.message:
        return result
    finish_reason = consistent_finish_reason(result.finish_reason, bool(message.get("tool_calls")))
    return replace(result, message=message, finish_reason=finish_reason)
