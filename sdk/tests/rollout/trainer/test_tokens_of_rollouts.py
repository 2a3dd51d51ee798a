"""The tokens of whole rollouts: what a model server really sampled, by the recorder and by the server's traces."""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.observe.traces.reader import events_of
from osmosis_ai.rollout.run.policies import ArithmeticPolicy
from osmosis_ai.rollout.trainer import (
    ChatCall,
    RolloutOutcome,
    ServerKeeper,
    TokensError,
    Trainer,
    TrainerLimits,
    completer_of,
    training_rows,
    turns_of_trace,
)

ROOT = Path(__file__).parents[4]
ROLLOUTS = 200
QUESTION = "What is ((1 + {n}) * (3 + 4) + 5) * 2 + (6 + 7)?"
"""Five levels of tool calls, of which the first has several at once, and the answer."""
TURNS = 6
ANEW = r"Turn 2 goes on from turn 1, .* tokenised anew"

arithmetic = completer_of(ArithmeticPolicy)


class ModelServer:
    """Samples ids of its own for every reply, and knows the conversation by them; version after version of weights."""

    def __init__(self, retokenises: bool = False) -> None:
        self.sampled: dict[str, list[tuple[list[int], list[int], list[float], int]]] = defaultdict(list)
        """By rollout: prompt, ids, log-probabilities and version of each turn."""
        self._retokenises = retokenises
        self._chance = random.Random(5)  # noqa: S311 - guards nothing
        self._ids_of: dict[tuple[str, str], list[int]] = {}
        self._version = 0

    async def __call__(self, call: ChatCall) -> CompletionsResult:
        assert call.sampling["return_token_ids"] is True
        reply = await arithmetic(call)
        await asyncio.sleep(self._chance.uniform(0, 0.005))
        prompt = [token for message in call.messages for token in self._tokens(call.rollout_id, message)]
        ids = [self._chance.randrange(150_000) for _ in range(self._chance.randrange(3, 40))]
        logprobs = [-self._chance.random() * 9 for _ in ids]
        self._version += self._chance.random() < 0.02
        self._ids_of[call.rollout_id, _text(reply.message)] = ids
        self.sampled[call.rollout_id].append((prompt, ids, logprobs, self._version))
        return CompletionsResult(
            reply.message,
            ids,
            logprobs,
            reply.usage,
            reply.finish_reason,
            prompt_token_ids=prompt,
            weight_versions=[self._version],
        )

    def _tokens(self, rollout_id: str, message: dict[str, Any]) -> list[int]:
        own = self._ids_of.get((rollout_id, _text(message)))
        if own is not None and not self._retokenises:
            return own
        return [200_000 + ord(character) for character in _text(message)]


def _text(message: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in message.items() if value is not None}, sort_keys=True)


def requests(count: int) -> Iterator[RolloutRequest]:
    for number in range(count):
        yield RolloutRequest(
            rollout_id=f"r{number}",
            server_url="http://filled-in.invalid",
            messages=[{"role": "user", "content": QUESTION.format(n=number)}],
            completion_params={"return_token_ids": True},
            metadata={"ground_truth": str(((1 + number) * 7 + 5) * 2 + 13)},
        )


def traces_below(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in folder.rglob("*.jsonl")}


async def played(model: ModelServer, folder: Path, count: int) -> list[RolloutOutcome]:
    """All rollouts over ``osmosis serve``; their traces are below ``folder``."""
    outcomes: list[RolloutOutcome] = []
    keeper = ServerKeeper(("-m", "server:agent_loop"), log_directory=folder)
    limits = TrainerLimits(concurrency=32)
    async with (
        Trainer(model, server_url=keeper.url, server_api_key=keeper.api_key, limits=limits) as trainer,
        keeper.serving(trainer),
    ):
        assert await trainer.run(requests(count), outcomes.append) is None
    return outcomes


@pytest.mark.slow
async def test_rows_are_what_was_sampled_to_the_last_bit_and_so_are_those_from_the_traces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    model = ModelServer()
    outcomes = await played(model, tmp_path, ROLLOUTS)
    assert len(outcomes) == ROLLOUTS
    traces = traces_below(tmp_path)
    for outcome in outcomes:
        assert outcome.reward == 1.0, outcome.problem
        assert outcome.turns == TURNS
        rollout_id = outcome.request.rollout_id
        sampled = model.sampled[rollout_id]
        (row,) = training_rows(outcome.tokens)
        last_prompt, last_ids, _, _ = sampled[-1]
        assert list(row.ids) == last_prompt + last_ids
        trained = [
            (token, logprob) for token, mask, logprob in zip(row.ids, row.mask, row.logprobs, strict=True) if mask
        ]
        assert trained == [pair for _, ids, logprobs, _ in sampled for pair in zip(ids, logprobs, strict=True)]
        assert row.prompt_length == len(sampled[0][0])
        assert list(dict.fromkeys(version for *_, version in sampled)) == list(row.weight_versions)
        assert training_rows(turns_of_trace(events_of(traces[rollout_id]))) == [row]
    assert max(outcome.tool_calls for outcome in outcomes) > TURNS - 1  # some of them at once


@pytest.mark.slow
async def test_a_model_server_that_tokenises_anew_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (outcome,) = await played(ModelServer(retokenises=True), tmp_path, 1)
    assert outcome.reward == 1.0
    with pytest.raises(TokensError, match=ANEW):
        training_rows(outcome.tokens)
    with pytest.raises(TokensError, match=ANEW):
        training_rows(turns_of_trace(events_of(traces_below(tmp_path)["r0"])))
