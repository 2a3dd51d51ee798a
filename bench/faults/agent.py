"""The agent of the fault bench: a few chat calls and a reward. Each run shows itself to the trainer by a nonce.

It runs on any checkout of the SDK (``--checkout``), so it uses only what each of them has.
"""

import os
import select
import time
from secrets import token_hex

from osmosis_ai.rollout import RolloutAgentLoop, RolloutContext, RolloutRequest, RolloutResult
from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema

RUN_NONCE = "run_nonce"
"""Of a chat call: ``<process id>-<something unique>``."""

if "FAKETIME_TIMESTAMP_FILE" in os.environ:
    # libfaketime 0.9.10 makes time.sleep fail, or last for hours: it moves the deadline, which is the steady clock's.
    time.sleep = lambda seconds: (select.select([], [], [], float(seconds)), None)[1]


class FaultBenchAgent(RolloutAgentLoop):
    """Talks to the policy ``metadata.turns`` times, of ``metadata.megabytes`` in the end."""

    name = "fault-bench"

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return []

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        nonce = f"{os.getpid()}-{token_hex(8)}"
        messages = list(ctx.request.messages)
        for turn in range(ctx.request.metadata["turns"]):
            if turn:
                messages.append({"role": "user", "content": "And then?"})
            reply = await ctx.chat(messages, **{RUN_NONCE: nonce})
            messages.append(reply.message)
        if megabytes := ctx.request.metadata.get("megabytes"):
            messages.append({"role": "user", "content": "x" * (megabytes * 1_000_000)})
        return ctx.complete(messages, reward=1.0)


agent_loop = FaultBenchAgent()
