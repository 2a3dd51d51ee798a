"""The agents beside this folder, each as a framework would run it that tidies up what the model has said."""

from importlib import import_module
from typing import Any

from osmosis_ai.rollout import RolloutAgentLoop, RolloutContext, RolloutResult


def rewriting(name: str) -> RolloutAgentLoop:
    """The agent loop of ``examples.frameworks.<name>``, whose history comes back with other words."""
    loop: type[Any] = type(import_module(f"examples.frameworks.{name}").agent_loop)

    class Rewriting(loop):  # type: ignore[misc]
        async def run(self, ctx: RolloutContext) -> RolloutResult:
            chat = ctx.chat

            async def tidied(messages: list[dict[str, Any]], **sampling: Any) -> Any:
                tidy = [{**each, "content": "tidied"} if each.get("tool_calls") else each for each in messages]
                return await chat(tidy, **sampling)

            ctx.chat = tidied  # type: ignore[method-assign]
            result: RolloutResult = await super().run(ctx)
            return result

    return Rewriting()


def __getattr__(name: str) -> RolloutAgentLoop:
    return rewriting(name)
