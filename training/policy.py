"""The model behind ``/v1/chat/completions``: a ``Completer`` that also keeps the trajectory of every rollout.

Data flow of one chat call: messages -> ``Trajectory.open_turn`` -> prompt ids -> ``Engine.generate`` -> sampled ids ->
``Trajectory.close_turn`` and, as text, ``chat.parsed`` -> the message that the agent gets.
"""

from dataclasses import dataclass

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.trainer import ChatCall
from training.chat import ChatFormat, parsed
from training.engine import Engine, Generated, StopCause
from training.sampling import SamplingParams
from training.trajectory import Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBudget:
    """Bounds beside the ``max_tokens`` of a call."""

    turn: int | None = None
    """Sampled tokens of one turn."""
    rollout: int | None = None
    """Sampled tokens of all turns of a rollout."""


class Policy:
    """Answers chat calls from an engine; ``complete`` is the trainer library's ``Completer``."""

    def __init__(self, engine: Engine, chat: ChatFormat, budget: TokenBudget | None = None) -> None:
        self._engine = engine
        self._chat = chat
        self._budget = budget or TokenBudget()
        self._trajectories: dict[str, Trajectory] = {}

    async def complete(self, call: ChatCall) -> CompletionsResult:
        """Generate the next message of a rollout, and record the turn under its id.

        Raises:
            CallRefusedError: if a sampling field cannot be honoured.
        """
        asked = SamplingParams.of(call.sampling)
        trajectory = self._trajectories.setdefault(call.rollout_id, Trajectory())
        prompt = trajectory.open_turn(self._chat, call.messages, call.tools)
        generated = await self._generate(call.rollout_id, prompt, asked, self._room(trajectory, asked.max_tokens))
        text = self._chat.text(generated.tokens)
        for stop in asked.stop:
            text = text.split(stop, 1)[0]
        message = parsed(text, call_id_prefix=f"call_{trajectory.turns}")
        trajectory.close_turn(generated.tokens, generated.logprobs, message)
        return CompletionsResult(
            message=message,
            prompt_token_ids=prompt,
            token_ids=generated.tokens,
            logprobs=generated.logprobs,
            usage={
                "prompt_tokens": len(prompt),
                "completion_tokens": len(generated.tokens),
                "total_tokens": len(prompt) + len(generated.tokens),
            },
            finish_reason=_finish_reason(generated.cause, "tool_calls" in message),
        )

    def take(self, rollout_id: str) -> Trajectory:
        """The trajectory of a rollout that has ended, which is then forgotten; empty if it made no chat call."""
        return self._trajectories.pop(rollout_id, Trajectory())

    def _room(self, trajectory: Trajectory, max_tokens: int) -> int:
        room = max_tokens if self._budget.turn is None else min(max_tokens, self._budget.turn)
        return room if self._budget.rollout is None else min(room, self._budget.rollout - trajectory.sampled_count)

    async def _generate(self, rollout_id: str, prompt: list[int], asked: SamplingParams, room: int) -> Generated:
        if room < 1:
            return Generated([], [], StopCause.LENGTH)
        return await self._engine.generate(rollout_id, prompt, asked.limited_to(room))


def _finish_reason(cause: StopCause, has_tool_calls: bool) -> str:
    if cause is StopCause.LENGTH:
        return "length"
    return "tool_calls" if has_tool_calls else "stop"
