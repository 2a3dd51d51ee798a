"""The calculator agent with a reward that pays for steps on the way, for ``--level two-step``.

Served with ``--agent training.stepwise:agent_loop``. Where the plain reward is 0 for every sample there is no spread,
and nothing to learn from; here the first result earns a part of it.
"""

import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

from osmosis_ai.rollout import RolloutContext, RolloutResult, get_message_content, read_number
from server import CalculatorAgentLoop
from training.problems import COMPUTE

FIRST_STEP = 0.25
"""For a tool result that is the first operation's."""
LAST_STEP = 0.5
"""For one that is the whole answer, whatever was answered then."""
_FIRST_OPERATION = re.compile(r"\((\S+) (\S) (\S+)\)")


class StepwiseAgentLoop(CalculatorAgentLoop):
    """The calculator, paid by the step."""

    name = "calculator-stepwise"

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        result = await super().run(ctx)
        added = result.final_messages[len(ctx.request.messages) :]
        return replace(result, reward=stepwise_reward(result.reward, added, ctx.request.metadata))


def stepwise_reward(reward: float | None, messages: list[dict[str, Any]], metadata: dict[str, Any]) -> float | None:
    """``reward`` if it is above 0 or there is none, else what the tool results among ``messages`` earn."""
    if reward is None or reward > 0:
        return reward
    results = {read_number(get_message_content(message)) for message in messages if message.get("role") == "tool"}
    if read_number(str(metadata.get("ground_truth"))) in results - {None}:
        return LAST_STEP
    first = _FIRST_OPERATION.search(str(metadata.get("expression")))
    if first is None:
        return 0.0
    a, operation, b = first.groups()
    return FIRST_STEP if COMPUTE[operation](Decimal(a), Decimal(b)) in results else 0.0


agent_loop = StepwiseAgentLoop()
