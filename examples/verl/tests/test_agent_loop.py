"""The agent loop in verl's real worker, with its real client and tokens; a fake model server stands for vLLM."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verl
from fake_model import FakeModelServer, save_model
from hydra import compose, initialize_config_dir
from support.live_server import LiveServer
from tensordict import TensorDict
from transformers import AutoTokenizer
from verl import DataProto
from verl.experimental.agent_loop import AgentLoopWorker
from verl.trainer.ppo.v1 import AgentLoopWorkerTQ, agent_loop_tq
from verl.utils.tokenizer.continuous_token import MergeResult, QwenContinuousTokenBuilder

from osmosis_ai.rollout import (
    OpenAIFunctionToolSchema,
    RolloutAgentLoop,
    RolloutContext,
    RolloutRequest,
    RolloutResult,
    create_app,
)
from osmosis_ai.rollout.trainer import TokensError
from server import CalculatorAgentLoop

HERE = Path(__file__).parents[1]
PROMPT_LENGTH, RESPONSE_LENGTH = 2048, 512
QUESTION = [{"role": "system", "content": "Use the tools."}, {"role": "user", "content": "What is 20 + 22, and 1 + 1?"}]


def calls(*pairs: tuple[int, int]) -> str:
    """Calls of ``add``, as a hermes model writes them."""
    made = [json.dumps({"name": "add", "arguments": {"a": a, "b": b}}) for a, b in pairs]
    return "Let me see, na.\n" + "\n".join(f"<tool_call>{call}</tool_call>" for call in made)


def calculator(prompt: str) -> str:
    """Two calls at once, one after them, then the answer."""
    answered = prompt.count("<|im_start|>tool")
    return {0: calls((20, 22), (1, 1)), 2: calls((42, 0))}.get(answered, "na na\n#### 42")


class Script(RolloutAgentLoop):
    """An agent without tools that a test writes."""

    name = "script"

    def __init__(self, play: Callable[[RolloutContext], Any]) -> None:
        self._play = play

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return []

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        result: RolloutResult = await self._play(ctx)
        return result


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


class Verl:
    """verl's worker and its configuration, on the server of one agent."""

    def __init__(
        self, folder: Path, tmp_path: Path, reply: Callable[[str], str], worker: Any = AgentLoopWorker
    ) -> None:
        self._loops = tmp_path / "loops.yaml"
        settings = {
            "model.path": folder,
            "rollout.name": "vllm",
            "rollout.prompt_length": PROMPT_LENGTH,
            "rollout.response_length": RESPONSE_LENGTH,
            "rollout.agent.agent_loop_config_path": self._loops,
            "rollout.agent.default_agent_loop": "osmosis",
        }
        configs = str(Path(verl.__file__).parent / "trainer/config")
        with initialize_config_dir(config_dir=configs, version_base=None):
            overrides = [f"actor_rollout_ref.{name}={value}" for name, value in settings.items()]
            self.config = compose("ppo_trainer", overrides)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = FakeModelServer(self.tokenizer, reply)
        self._worker = worker

    def worker(self, server_url: str) -> Any:
        written = (HERE / "osmosis_agent_loop.yaml").read_text()
        self._loops.write_text(written.replace("http://127.0.0.1:9000", server_url))
        return self._worker(self.config, self.model.client(self.config))

    async def generate(self, agent_loop: RolloutAgentLoop, count: int = 1, truth: str = "42") -> DataProto:
        with LiveServer(create_app(agent_loop)) as server:
            return await self.generate_on(server, count, truth)

    async def generate_on(self, server: LiveServer, count: int = 1, truth: str = "42") -> DataProto:
        fields = {
            "raw_prompt": [QUESTION] * count,
            "reward_model": [{"style": "rule", "ground_truth": truth}] * count,
            "extra_info": [{"index": np.int64(number)} for number in range(count)],
        }
        arrays: dict[str, Any] = {name: np.empty(count, dtype=object) for name in fields}
        for name, values in fields.items():
            arrays[name][:] = values
        batch = DataProto(batch=TensorDict({}, batch_size=count), non_tensor_batch=arrays)
        return await self.worker(server.url).generate_sequences(batch)


@pytest.fixture
def play(folder: Path, tmp_path: Path) -> Callable[..., Verl]:
    def made(reply: Callable[[str], str] = calculator, **options: Any) -> Verl:
        return Verl(folder, tmp_path, reply, **options)

    return made


def row(batch: DataProto, number: int = 0) -> dict[str, list[Any]]:
    """One sample without its padding."""
    said = batch.batch["attention_mask"][number].bool()
    answered = said[PROMPT_LENGTH:]
    return {
        "prompt": batch.batch["prompts"][number][said[:PROMPT_LENGTH]].tolist(),
        "response": batch.batch["responses"][number][answered].tolist(),
        "mask": batch.batch["response_mask"][number][answered].tolist(),
        "logprobs": batch.batch["rollout_log_probs"][number][answered].tolist(),
        "rewards": batch.batch["rm_scores"][number][answered].tolist(),
    }


async def test_the_row_is_what_the_model_server_was_sent_and_said(play: Callable[..., Verl]) -> None:
    run = play()
    batch = await run.generate(CalculatorAgentLoop())
    got = row(batch)
    assert len(run.model.calls) == 3
    (first, _, _), _, (last_prompt, last, _) = run.model.calls
    assert got["prompt"] == first
    assert got["prompt"] + got["response"] == last_prompt + last.token_ids
    for prompt, output, _ in run.model.calls:
        at = len(prompt) - len(first)
        sampled = slice(at, at + len(output.token_ids))
        assert (first + got["response"])[: len(prompt)] == prompt
        assert got["response"][sampled] == output.token_ids
        assert got["mask"][sampled] == [1] * len(output.token_ids)
        assert got["logprobs"][sampled] == output.log_probs
    assert sum(got["mask"]) == sum(len(output.token_ids) for _, output, _ in run.model.calls)
    assert not any(logprob for logprob, trained in zip(got["logprobs"], got["mask"], strict=True) if not trained)
    assert got["rewards"] == [0.0] * (len(got["rewards"]) - 1) + [1.0]
    assert batch.non_tensor_batch["__num_turns__"].tolist() == [6]
    assert batch.non_tensor_batch["max_global_steps"].tolist() == [7]


async def test_nothing_that_was_sampled_is_tokenised_again(play: Callable[..., Verl]) -> None:
    run = play()
    got = row(await run.generate(CalculatorAgentLoop()))
    whole = got["prompt"] + got["response"]
    anew = run.tokenizer(run.tokenizer.decode(whole))["input_ids"]
    assert len(anew) < len(whole)  # "na", which the model server said in two tokens
    assert run.tokenizer.decode(anew) == run.tokenizer.decode(whole)


async def test_what_the_agent_and_the_model_were_told(play: Callable[..., Verl]) -> None:
    told: list[Any] = []

    class Listening(CalculatorAgentLoop):
        async def run(self, ctx: RolloutContext) -> RolloutResult:
            result = await super().run(ctx)
            told.extend([ctx.request.metadata, *result.final_messages])
            return result

    run = play()
    await run.generate(Listening())
    metadata, _, _, called, first, second, *_, answer = told
    assert metadata == {"index": 0, "style": "rule", "ground_truth": "42"}
    assert called["content"].strip() == "Let me see, na."
    assert [(tool["content"], tool["tool_call_id"]) for tool in (first, second)] == [
        ("42", called["tool_calls"][0]["id"]),
        ("2", called["tool_calls"][1]["id"]),
    ]
    assert answer["content"] == "na na\n#### 42"  # without the model's end of turn
    assert '"name": "divide"' in run.tokenizer.decode(run.model.calls[0][0])
    assert run.model.calls[0][2]["logprobs"] is True
    assert run.model.calls[0][2]["temperature"] == run.config.actor_rollout_ref.rollout.temperature


async def test_many_at_once_keep_apart(play: Callable[..., Verl]) -> None:
    run = play()
    batch = await run.generate(CalculatorAgentLoop(), count=8)
    answers = {tuple(output.log_probs) for _, output, _ in run.model.calls}
    assert len(answers) == 24
    for number in range(8):
        got = row(batch, number)
        of_turns = [logprob for logprob, trained in zip(got["logprobs"], got["mask"], strict=True) if trained]
        mine = [output for prompt, output, _ in run.model.calls if output.log_probs[0] in of_turns]
        assert [logprob for output in mine for logprob in output.log_probs] == of_turns
    assert batch.batch["rm_scores"].sum(dim=1).tolist() == [1.0] * 8


async def test_a_wrong_answer_is_a_real_zero(play: Callable[..., Verl]) -> None:
    batch = await play().generate(CalculatorAgentLoop(), truth="41")
    assert "rm_scores" in batch.batch
    assert row(batch)["rewards"][-1] == 0.0


async def test_no_reward_is_an_error_and_not_zero(play: Callable[..., Verl]) -> None:
    async def unscored(ctx: RolloutContext) -> RolloutResult:
        reply = await ctx.chat(list(ctx.request.messages))
        return ctx.complete([*ctx.request.messages, reply.message])

    with pytest.raises(RuntimeError, match=r"has no reward: the agent gave none\."):
        await play().generate(Script(unscored))


async def test_a_reward_for_nothing_is_an_error(play: Callable[..., Verl]) -> None:
    async def idle(ctx: RolloutContext) -> RolloutResult:
        return ctx.complete([{"role": "assistant", "content": "42"}], reward=1.0)

    with pytest.raises(RuntimeError, match="asked the model for nothing"):
        await play().generate(Script(idle))


async def test_a_failed_rollout_is_run_again_and_what_it_sampled_is_not_mixed_in(play: Callable[..., Verl]) -> None:
    attempts: list[str] = []

    async def failing_first(ctx: RolloutContext) -> RolloutResult:
        attempts.append(ctx.request.rollout_id)
        reply = await ctx.chat(list(ctx.request.messages))
        if len(attempts) == 1:
            raise RuntimeError("the database is gone")
        return ctx.complete([*ctx.request.messages, reply.message], reward=0.5)

    run = play(lambda prompt: "na")
    got = row(await run.generate(Script(failing_first)))
    assert len(set(attempts)) == 2
    assert got["logprobs"] == run.model.calls[1][1].log_probs
    assert got["rewards"][-1] == 0.5


async def test_a_rollout_that_always_fails_says_why(play: Callable[..., Verl]) -> None:
    async def failing(ctx: RolloutContext) -> RolloutResult:
        raise RuntimeError("the database is gone")

    with pytest.raises(RuntimeError, match="the database is gone"):
        await play().generate(Script(failing))


async def test_what_an_update_of_the_weights_broke_off_is_asked_for_again(play: Callable[..., Verl]) -> None:
    run = play()
    run.model.aborts = 1
    got = row(await run.generate(CalculatorAgentLoop()))
    assert len(run.model.calls) == 3
    assert sum(got["mask"]) == sum(len(output.token_ids) for _, output, _ in run.model.calls)


async def test_a_conversation_that_is_full_is_told_so_and_never_cut(play: Callable[..., Verl]) -> None:
    run = play(lambda prompt: calls((20, 22)))  # for ever
    batch = await run.generate(CalculatorAgentLoop())
    got = row(batch)
    assert len(got["response"]) <= RESPONSE_LENGTH
    assert got["prompt"] + got["response"] == run.model.calls[-1][0] + run.model.calls[-1][1].token_ids
    assert got["rewards"][-1] == 0.0  # the agent's word: it has no answer


async def compacting(ctx: RolloutContext) -> RolloutResult:
    """Forgets its first turn."""
    first = await ctx.chat(list(ctx.request.messages))
    second = await ctx.chat([ctx.request.messages[0], {"role": "user", "content": f"In short: {first.content}. And?"}])
    return ctx.complete([second.message], reward=1.0)


async def test_two_conversations_are_two_rows_for_trainer_v1(
    play: Callable[..., Verl], monkeypatch: pytest.MonkeyPatch
) -> None:
    put: dict[str, Any] = {}

    async def take(**given: Any) -> None:
        put.update(given)

    worker = AgentLoopWorkerTQ.__ray_metadata__.modified_class  # what ray would make an actor of
    monkeypatch.setattr(agent_loop_tq.tq, "init", lambda: None)
    monkeypatch.setattr(agent_loop_tq.tq, "async_kv_batch_put", take)
    run = play(lambda prompt: "na", worker=worker)
    fields = {"raw_prompt": QUESTION, "uid": "u", "session_id": 0, "global_steps": 3, "agent_name": "osmosis"}
    trajectory = {"step": 3, "sample_index": 0, "rollout_n": 0, "validate": False}
    with LiveServer(create_app(Script(compacting))) as server:
        await run.worker(server.url)._run_agent_loop({}, trajectory, **fields)
    assert put["keys"] == ["u_0_0", "u_0_1"]
    for number, (prompt, output, _) in enumerate(run.model.calls):
        assert put["fields"]["input_ids"][number].tolist() == prompt + output.token_ids
        assert put["fields"]["rollout_log_probs"][number].tolist() == output.log_probs
        assert put["fields"]["rm_scores"][number][-1] == 1.0


async def test_two_rows_are_refused_where_only_one_can_be_taken(play: Callable[..., Verl]) -> None:
    with pytest.raises(RuntimeError, match=r"2 rows, which only trainer\.use_v1=True takes"):
        await play(lambda prompt: "na").generate(Script(compacting))


async def test_a_builder_that_tokenises_anew_is_refused(
    play: Callable[..., Verl], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = play()

    def merged(builder: Any, before: Any, messages: Any, ids: Any, *, tools: Any) -> MergeResult:
        return MergeResult(builder.build_initial_tokens(messages, tools=tools), appended_token_count=0)

    monkeypatch.setattr(QwenContinuousTokenBuilder, "merge_context_tokens", merged)
    with pytest.raises(TokensError, match=r"Turn 2 goes on from turn 1.*the conversation was tokenised anew"):
        await run.generate(CalculatorAgentLoop())


async def test_a_cancelled_sample_ends_its_rollout(play: Callable[..., Verl]) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()
    here = asyncio.get_running_loop()

    async def waiting(ctx: RolloutContext) -> RolloutResult:
        here.call_soon_threadsafe(asked.set)
        try:
            await asyncio.sleep(60)
        finally:
            here.call_soon_threadsafe(ended.set)
        raise AssertionError

    with LiveServer(create_app(Script(waiting))) as server:
        work = asyncio.create_task(play().generate_on(server))
        await asked.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await asyncio.wait_for(ended.wait(), 30)
