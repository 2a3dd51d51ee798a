"""The agent of the fault bench: a few chat calls and a reward. Each run shows itself to the trainer by a nonce."""

from secrets import token_hex

from osmosis_ai.rollout import RolloutAgentLoop, RolloutContext, RolloutRequest, RolloutResult
from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema

RUN_NONCE = "run_nonce"


class FaultBenchAgent(RolloutAgentLoop):
    """Talks to the policy ``metadata.turns`` times."""

    name = "fault-bench"

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return []

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        nonce = token_hex(8)
        messages = list(ctx.request.messages)
        for turn in range(ctx.request.metadata["turns"]):
            if turn:
                messages.append({"role": "user", "content": "And then?"})
            reply = await ctx.chat(messages, **{RUN_NONCE: nonce})
            messages.append(reply.message)
        return ctx.complete(messages, reward=1.0)


agent_loop = FaultBenchAgent()
