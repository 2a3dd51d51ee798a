"""One rollout in this process, with a script in the model's place: what a test of an agent wants."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext
from osmosis_ai.rollout.core.llm_client import LLMClientProtocol
from osmosis_ai.rollout.core.resources import run_agent
from osmosis_ai.rollout.core.results import result_of_return
from osmosis_ai.rollout.core.schemas import MessageDict, RolloutRequest, RolloutResponse
from osmosis_ai.rollout.trainer.policy import Script, ScriptedPolicy


async def play(
    agent_loop: RolloutAgentLoop,
    script: Script | LLMClientProtocol,
    prompt: str | Sequence[MessageDict] = "",
    *,
    metadata: Mapping[str, Any] | None = None,
    max_turns: int = 10,
) -> RolloutResponse:
    """Run ``agent_loop`` once, and give the result as a trainer would get it.

    Args:
        script: replies in their order, a function of the messages, or a policy.
        prompt: the user's message, or all messages.
        metadata: the further columns of a row, ``ground_truth`` among them.

    Raises:
        Exception: whatever the agent raises, as it is; a server would report an ERROR.
    """
    policy: Any = script if isinstance(script, LLMClientProtocol) else ScriptedPolicy(script)
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    request = RolloutRequest(
        rollout_id="play",
        server_url="http://localhost",
        messages=messages,
        completion_params={},
        max_turns=max_turns,
        metadata=dict(metadata or {}),
    )
    tools = agent_loop.get_tools(request)
    if callable(offer := getattr(policy, "set_tools", None)):
        offer(tools)
    ctx = RolloutContext(request=request, tools=tools, llm=policy, _start_time=time.monotonic())
    result = await run_agent(agent_loop.run, ctx)
    return RolloutResponse.model_validate(result_of_return("play", ctx, result, agent_loop.run).payload)
