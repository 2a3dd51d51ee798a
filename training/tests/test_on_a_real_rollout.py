"""What is trained on is what was sampled: shown on real rollouts, real model, real server, real sockets."""

import asyncio
from contextlib import closing
from typing import Any

import pytest
import torch

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.trainer import ChatCall, RedispatchPolicy, ServerKeeper, Trainer, TrainerLimits
from training.chat import ChatFormat, parsed
from training.engine import Engine
from training.learner import completion_logprobs
from training.policy import Policy, TokenBudget
from training.problems import Level, Wordings, held_out_rows, worked_examples
from training.rollouts import Played, RolloutRunner, RolloutShape, Task
from training.weights import Model

PROBLEMS = 8
# One bf16 rounding is 2^-8 of a value; through 30 layers, logits near 20 move by some tenths, on average far less.
LARGEST_ERROR = 1.0
MEAN_ERROR = 0.05


class Recorded:
    """Rollouts through the server, with every answer of the policy as it went out."""

    def __init__(self, played: list[Played], answers: dict[str, list[CompletionsResult]]) -> None:
        self.played = played
        self.answers = answers

    def two_turns(self) -> Played:
        """A rollout that called a tool and then answered."""
        return next(one for one in self.played if len(self.answers[one.task.rollout_id]) == 2)


@pytest.fixture(scope="module")
def recorded(model: Model, chat: ChatFormat, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    with closing(Engine(model.decoder, model.weights, chat, rows=PROBLEMS, max_length=400)) as engine:
        return asyncio.run(record(Policy(engine, chat, TokenBudget(turn=44, rollout=58)), tmp_path_factory))


async def record(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    answers: dict[str, list[CompletionsResult]] = {}

    async def complete(call: ChatCall) -> CompletionsResult:
        answer = await policy.complete(call)
        answers.setdefault(call.rollout_id, []).append(answer)
        return answer

    keeper = ServerKeeper(("-m", "server:agent_loop"), journal=tmp_path_factory.mktemp("real") / "journal.db")
    limits = TrainerLimits(concurrency=PROBLEMS)
    shape = RolloutShape(examples=worked_examples(Level.ONE_STEP), max_turns=2, max_tokens_turn=44, context=399)
    rows = held_out_rows(Level.ONE_STEP, PROBLEMS, Wordings.TRAINED)
    # Greedy for the first half, so that some rollouts surely call a tool and go on to a second turn.
    tasks = [
        Task(f"real-{number}", row, number, temperature=0.0 if number < PROBLEMS // 2 else 1.0)
        for number, row in enumerate(rows)
    ]
    async with (
        Trainer(complete, server_url=keeper.url, server_api_key=keeper.api_key, limits=limits) as trainer,
        keeper.serving(trainer),
    ):
        return Recorded(await RolloutRunner(trainer, policy, shape, RedispatchPolicy()).run(tasks), answers)


def test_the_trained_ids_are_the_sampled_ids_and_nothing_else_carries_loss(
    recorded: Recorded, chat: ChatFormat
) -> None:
    for played in recorded.played:
        answers = recorded.answers[played.task.rollout_id]
        [segment] = played.trajectory.segments
        trained = [token for token, used in zip(segment.ids, segment.is_sampled, strict=True) if used]
        assert trained == [token for answer in answers for token in answer.token_ids]
        logprobs = [value for value, used in zip(segment.logprobs, segment.is_sampled, strict=True) if used]
        assert logprobs == [value for answer in answers for value in answer.logprobs]
        assert not played.trajectory.rewrites

    played = recorded.two_turns()
    [segment] = played.trajectory.segments
    first, second = recorded.answers[played.task.rollout_id]
    [tool] = [message for message in played.messages if message["role"] == "tool"]
    # Word for word: prompt, sampled call, tool result, sampled answer.
    question = f"<|im_start|>user\n{played.task.row['user_prompt']}<|im_end|>\n<|im_start|>assistant\n"
    result = f"\n<|im_start|>tool\n{tool['content']}<|im_end|>\n<|im_start|>assistant\n"
    call, answer = chat.text(first.token_ids), chat.text(second.token_ids)
    assert chat.text(segment.ids).endswith(f"{question}{call}<|im_end|>{result}{answer}")
    untrained = [token for token, used in zip(segment.ids, segment.is_sampled, strict=True) if not used]
    assert chat.text(untrained).endswith(question + result)


def test_the_recorded_logprobs_are_those_of_a_fresh_forward_pass(recorded: Recorded, model: Model) -> None:
    errors = torch.zeros(0)
    for segment in [segment for played in recorded.played for segment in played.trajectory.segments]:
        start = segment.is_sampled.index(True)
        ids = torch.tensor(segment.ids)
        with torch.no_grad():
            fresh, _ = completion_logprobs(model.decoder, model.weights, ids[:start], ids[None, start:], 1.0)
        found = (fresh[0] - torch.tensor(segment.logprobs[start:])).abs()
        errors = torch.cat([errors, found[segment.is_sampled[start:]]])
    assert errors.max() < LARGEST_ERROR
    assert errors.mean() < MEAN_ERROR


def test_the_messages_the_server_reports_are_what_was_sampled(recorded: Recorded, chat: ChatFormat) -> None:
    for played in recorded.played:
        answers = recorded.answers[played.task.rollout_id]
        said = [message for message in played.messages if message["role"] == "assistant"]
        meant = [parsed(chat.text(answer.token_ids), f"call_{turn}") for turn, answer in enumerate(answers)]
        assert [_words(message) for message in said] == [_words(message) for message in meant]


def _words(message: dict[str, Any]) -> tuple[str, list[Any]]:
    return message.get("content") or "", [call["function"] for call in message.get("tool_calls") or []]
