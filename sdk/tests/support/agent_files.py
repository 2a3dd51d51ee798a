"""An agent loop in a file, as a user has one."""

from pathlib import Path
from textwrap import dedent

AGENT = """
    from osmosis_ai.rollout import RolloutAgentLoop


    class Agent(RolloutAgentLoop):
        name = "agent"
        finish_reason = "stop"

        def get_tools(self, request):
            number = {"type": "number"}
            parameters = {"type": "object", "properties": {"a": number, "b": number}, "required": ["a", "b"]}
            return [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": parameters}}]

        async def run(self, ctx):
            ctx.log_event("pre_llm", turn=1)
            reply = await ctx.chat(list(ctx.request.messages), **ctx.request.completion_params)
            return ctx.complete([*ctx.request.messages, reply.message], finish_reason=self.finish_reason, reward=1.0)


    agent_loop = Agent()
"""
PICKY_AGENT = """
from osmosis_ai.rollout import RolloutAgentLoop

class Loop(RolloutAgentLoop):
    name = "picky"

    def get_tools(self, request):
        return []

    async def run(self, ctx):
        if ctx.request.metadata.get("fail"):
            raise ValueError("not this one")
        reply = await ctx.chat(list(ctx.request.messages))
        return ctx.complete([*ctx.request.messages, reply.message], reward={"reward": 0.5, "form": 1.0})

agent_loop = Loop()
"""
"""It raises on rows with a column ``fail``; any other has a reward of two parts."""


def write_agent(directory: Path, finish_reason: str = "stop") -> None:
    """Write ``user_agent.py``, whose ``agent_loop`` chats once and ends with ``finish_reason``."""
    source = dedent(AGENT).replace('finish_reason = "stop"', f'finish_reason = "{finish_reason}"')
    (directory / "user_agent.py").write_text(source.lstrip())
