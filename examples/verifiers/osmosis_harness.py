"""A harness of verifiers whose program is a rollout of a rollout server.

The server's agent makes its chat calls to us, and each goes on to verifiers' interception server, which knows the
model, imposes the sampling and keeps the trace. The reward is the server's. A rollout without one fails its trace: it
is never 0. Page: ``examples/verifiers/README.md``.
"""

import os
from typing import Any

import openai
from verifiers.v1 import Harness, HarnessConfig, HarnessError, ModelContext, ProgramResult, Runtime, TaskData, Trace
from verifiers.v1.dialects.chat import message_to_wire

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.trainer import CallRefusedError, ChatCall, Trainer, TrainerLimits

__all__ = ["OsmosisHarness"]

REWARD = "rollout"
DAY_SECONDS = 86_400.0  # verifiers has a time-out of its own for the agent, and cancels


class OsmosisHarnessConfig(HarnessConfig):
    id: str = "osmosis_harness"
    server_url: str = "http://127.0.0.1:9000"
    """Base URL of the rollout server."""
    server_key_var: str = "OSMOSIS_ROLLOUT_SERVER_API_KEY"
    """The environment variable with that server's key."""
    callback_host: str = "127.0.0.1"
    """This machine's address as the rollout server sees it."""
    max_turns: int = 10
    max_tokens_total: int = 8192


class OsmosisHarness(Harness[OsmosisHarnessConfig]):
    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: ModelContext,
        trace: Trace,
        runtime: Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: TaskData,
    ) -> ProgramResult:
        """Run one rollout to its end; every chat call of it goes to ``endpoint``."""
        request = RolloutRequest(
            rollout_id=trace.id,
            server_url="http://filled-in.invalid",
            messages=self._messages(data),
            completion_params={},
            max_turns=self.config.max_turns,
            max_tokens_total=self.config.max_tokens_total,
            # What the taskset adds to the data of a task: the ground truth, for one.
            metadata=data.model_dump(mode="json", exclude=set(TaskData.model_fields)),
        )
        async with (
            openai.AsyncOpenAI(base_url=endpoint, api_key=secret) as model,
            Trainer(
                lambda call: _complete(model, ctx.model, call),
                server_url=self.config.server_url,
                server_api_key=os.environ.get(self.config.server_key_var),
                host=self.config.callback_host,
                limits=TrainerLimits(concurrency=1, rollout_timeout_seconds=DAY_SECONDS),
            ) as trainer,
        ):
            outcome = await trainer.run_one(request)
        if outcome.reward is not None:
            trace.record_reward(REWARD, outcome.reward)
        return ProgramResult(exit_code=int(outcome.problem is not None), stdout="", stderr=outcome.problem or "")

    async def score(self, trace: Trace, runtime: Runtime) -> None:
        """Fail what has no reward: a sum of no rewards is 0."""
        await super().score(trace, runtime)
        if REWARD not in trace.rewards:
            raise HarnessError(f"rollout {trace.id} has no reward (stopped by: {trace.stop_condition}): leave it out.")

    def _messages(self, data: TaskData) -> list[dict[str, Any]]:
        system, prompt = self.resolve_prompt(data)
        said = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else map(message_to_wire, prompt or [])
        return [*([{"role": "system", "content": system}] if system else []), *said]


async def _complete(model: openai.AsyncOpenAI, name: str, call: ChatCall) -> CompletionsResult:
    body = {key: value for key, value in call.sampling.items() if key != "model"}
    if call.tools:
        body["tools"] = call.tools
    try:
        reply = await model.chat.completions.create(model=name, messages=call.messages, extra_body=body)  # type: ignore[arg-type]
    except openai.APIError as error:  # retried by now, or the rollout is stopped: final in either case
        raise CallRefusedError(f"verifiers gave no answer: {error}") from error
    return CompletionsResult(
        message=reply.choices[0].message.model_dump(mode="json", exclude_unset=True),
        token_ids=[],
        logprobs=[],
        usage=reply.usage.model_dump(mode="json", exclude_none=True) if reply.usage else {},
        finish_reason=reply.choices[0].finish_reason,
    )
