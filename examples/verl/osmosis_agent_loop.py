"""An agent loop of verl whose run is a rollout of a rollout server: tokens in, tokens out.

The server's agent makes its chat calls to us. What a conversation has already keeps its ids; only messages that are new
to it are tokenised, by verl's own builder, and verl's model server samples after ids. The rows are those of
``training_rows``: each an exact chain of what the model server was sent and said, or an error. A rollout without reward
is an error as well, never 0. Page: ``examples/verl/README.md``.
"""

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from pydantic import ValidationError
from verl.experimental.agent_loop import AgentLoopBase, AgentLoopOutput
from verl.experimental.agent_loop.tool_parser import FunctionCall, ToolParser
from verl.tools.schemas import OpenAIFunctionToolSchema

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.sameness import shown
from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.trainer import ChatCall, RedispatchPolicy, Trainer, TrainerLimits, TrainingRow, training_rows

Message = dict[str, Any]


@dataclass(frozen=True)
class _Said:
    """A conversation up to a reply, and its ids."""

    messages: list[bytes]
    """What a model is shown of each."""
    ids: list[int]
    start: int
    """How many ids stand before the first reply."""


class OsmosisAgentLoop(AgentLoopBase):
    """Named, with these settings, in the file of ``actor_rollout_ref.rollout.agent.agent_loop_config_path``.

    Args:
        server_url: base URL of the rollout server.
        server_key_var: the environment variable with that server's key.
        callback_host: this machine's address as the rollout server sees it.
        max_turns: of the rollout's request.
        max_attempts: rollouts for one sample, the first included, where one ends in an error.
        rollout_timeout_seconds: of each.
    """

    def __init__(
        self,
        *args: Any,
        server_url: str,
        server_key_var: str = "OSMOSIS_ROLLOUT_SERVER_API_KEY",
        callback_host: str = "127.0.0.1",
        max_turns: int = 10,
        max_attempts: int = 3,
        rollout_timeout_seconds: float = 3600.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._server_url = server_url
        self._server_key = os.environ.get(server_key_var)
        self._callback_host = callback_host
        self._max_turns = max_turns
        self._again = RedispatchPolicy(max_attempts=max_attempts)
        self._limits = TrainerLimits(concurrency=1, rollout_timeout_seconds=rollout_timeout_seconds)
        self._parser = ToolParser.get_tool_parser(self.rollout_config.multi_turn.format, self.tokenizer)
        self._special = re.compile("|".join(map(re.escape, self.tokenizer.all_special_tokens)) or "(?!)")
        self._said: dict[str, list[_Said]] = defaultdict(list)
        self._metrics = {"generate_sequences": 0.0, "num_preempted": 0}

    async def run(self, sampling_params: dict[str, Any], **fields: Any) -> AgentLoopOutput | list[AgentLoopOutput]:
        """One sample. Several outputs where the conversation was compacted or branched, for verl's trainer v1.

        Raises:
            RuntimeError: the rollout has no reward or no row, or several where only one can be taken.
            TokensError: its turns are no chain of ids.
        """
        self._sampling = {**sampling_params, "logprobs": True}
        request = RolloutRequest(
            rollout_id=uuid4().hex,
            server_url="http://filled-in.invalid",
            messages=list(fields["raw_prompt"]),
            completion_params={},
            max_turns=self._max_turns,
            max_tokens_total=self.rollout_config.prompt_length + self.rollout_config.response_length,
            metadata=_metadata(fields),
        )
        async with Trainer(
            self._complete,
            server_url=self._server_url,
            server_api_key=self._server_key,
            host=self._callback_host,
            limits=self._limits,
        ) as trainer:
            outcome = (await trainer.run_again(request, self._again))[-1]
        name = f"Rollout {outcome.request.rollout_id}"
        if outcome.reward is None:
            raise RuntimeError(f"{name} has no reward: {outcome.problem or 'the agent gave none.'}")
        rows = training_rows(outcome.tokens)
        if not rows:
            raise RuntimeError(f"{name} has a reward, but asked the model for nothing: there is no row to train.")
        if len(rows) > 1 and "session_id" not in fields:  # that is what trainer v1 says, and it alone takes lists
            raise RuntimeError(f"{name} is {len(rows)} rows, which only trainer.use_v1=True takes.")
        outputs = [self._output(row, outcome.reward) for row in rows]
        return outputs[0] if len(outputs) == 1 else outputs

    def _output(self, row: TrainingRow, reward: float) -> AgentLoopOutput:
        said = slice(row.prompt_length, None)
        first, last = (row.weight_versions[0], row.weight_versions[-1]) if row.weight_versions else (None, None)
        return AgentLoopOutput(
            prompt_ids=row.ids[: row.prompt_length],
            response_ids=row.ids[said],
            response_mask=row.mask[said],
            response_logprobs=row.logprobs[said],
            reward_score=reward,
            num_turns=2 * len(row.turns),
            metrics=self._metrics,
            extra_fields={
                "min_global_steps": first,
                "max_global_steps": last,
                "turn_scores": [],
                "tool_rewards": [],
                "reward_extra_info": {},
            },
        )

    async def _complete(self, call: ChatCall) -> CompletionsResult:
        """One chat call: the ids that its conversation has, those of what is new, and what is sampled after them."""
        ids, start = await self._prompt(call)
        room = self.rollout_config.response_length - (len(ids) - start)
        if room <= 0:  # nothing is sampled that verl would cut off; what such a rollout is worth, the agent says
            return CompletionsResult({"role": "assistant", "content": ""}, [], [], {}, "length")
        sampling = {**self._sampling, "max_tokens": min(room, call.sampling.get("max_tokens") or room)}
        if self._parser.stop_token_ids:
            sampling["stop_token_ids"] = [*(sampling.get("stop_token_ids") or []), *self._parser.stop_token_ids]
        started = time.monotonic()
        output = await self.server_manager.generate(
            request_id=call.rollout_id, prompt_ids=ids, sampling_params=sampling
        )
        self._metrics["generate_sequences"] += time.monotonic() - started
        self._metrics["num_preempted"] += output.num_preempted or 0
        if output.stop_reason in ("abort", "aborted"):  # half a message: the server asks again
            return CompletionsResult({"role": "assistant", "content": ""}, [], [], {}, "abort")

        content, calls = await self._parser.extract_tool_calls(output.token_ids, list(_described(call.tools)))
        message: Message = {"role": "assistant", "content": self._special.sub("", content)}
        if calls:
            message["tool_calls"] = [_tool_call(made, len(call.messages), n) for n, made in enumerate(calls)]
        merged, _, _ = await self.ct_merge_assistant_token(ids, output.token_ids, [])
        self._said[call.rollout_id].append(_Said([*map(shown, call.messages), shown(message)], merged.token_ids, start))
        ended = "length" if len(output.token_ids) >= sampling["max_tokens"] else "tool_calls" if calls else "stop"
        steps = [output.extra_fields.get(f"{which}_global_steps") for which in ("min", "max")]
        return CompletionsResult(
            message=message,
            token_ids=output.token_ids,
            logprobs=output.log_probs or [],
            usage={
                "prompt_tokens": len(ids),
                "completion_tokens": len(output.token_ids),
                "total_tokens": len(ids) + len(output.token_ids),
            },
            finish_reason=ended,
            prompt_token_ids=ids,
            weight_versions=[step for step in steps if step is not None],
        )

    async def _prompt(self, call: ChatCall) -> tuple[list[int], int]:
        messages = list(map(shown, call.messages))
        known = [said for said in self._said[call.rollout_id] if said.messages == messages[: len(said.messages)]]
        for_template = [_with_objects(_bare(message)) for message in call.messages]
        if not known:
            ids = await self.ct_build_initial_tokens(for_template, tools=call.tools)
            return ids, len(ids)
        said = max(known, key=lambda said: len(said.messages))
        before = for_template[: len(said.messages)]
        merged, _, _ = await self.ct_merge_context_msg(before, for_template, said.ids, [], tools=call.tools)
        return merged.token_ids, said.start


def _metadata(fields: dict[str, Any]) -> dict[str, Any]:
    """``extra_info`` and the ground truth of verl's row, without numpy's types."""
    told = {**(fields.get("extra_info") or {}), **(fields.get("reward_model") or {})}
    plain: dict[str, Any] = json.loads(json.dumps(told, default=lambda value: value.tolist()))
    return plain


def _bare(message: Message) -> Message:
    """What is left out and what is null say the same."""
    return {name: value for name, value in message.items() if value is not None}


def _with_objects(message: Message) -> Message:
    """Arguments as templates want them."""
    calls = []
    for call in message.get("tool_calls") or []:
        with suppress(ValueError, TypeError):
            call = {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
        calls.append(call)
    return {**message, "tool_calls": calls} if calls else message


def _described(tools: list[dict[str, Any]]) -> Iterator[OpenAIFunctionToolSchema]:
    """Those that verl has words for; some of its parsers read the types of the arguments."""
    for tool in tools:
        with suppress(ValidationError):
            yield OpenAIFunctionToolSchema.model_validate(tool)


def _tool_call(call: FunctionCall, turn: int, number: int) -> dict[str, Any]:
    name = call.tool_call_id or f"call_{turn}_{number}"
    return {"id": name, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
