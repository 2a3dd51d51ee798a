"""TRL's ``rollout_func`` from the URL of a rollout server: one rollout for each prompt that TRL asks for.

Invariants: every id was said by the model server, none is made of text here; a rollout without a reward is TRL's
unscorable ``None``, never 0, and nothing of it is trained; what TRL gets is in the order of its prompts.

::

    with ServerRollouts(complete, problems, server_url=url, publish=publish) as rollouts:
        dataset = Dataset.from_list(rollouts.prompts)
        GRPOTrainer(model, rollouts.reward, rollout_func=rollouts, train_dataset=dataset, ...).train()

It needs neither TRL nor PyTorch; whatever answers ``complete`` may have them.
"""

import asyncio
import json
import logging
import random
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Self

from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.core.text import counted
from osmosis_ai.rollout.trainer import (
    Completer,
    Ending,
    RedispatchPolicy,
    RolloutOutcome,
    Trainer,
    TrainerError,
    TrainerLimits,
    training_rows,
)

logger = logging.getLogger(__name__)

TOLD_AFTER = 16
"""How many rollouts without a reward, one after another, are said to be so."""
NOTHING = 0
"""The token that stands for a rollout of which nothing is trained."""


class ServerRollouts:
    """Runs TRL's rollouts on a server. A context manager, and callable as TRL calls a ``rollout_func``.

    Args:
        complete: answers the chat calls, in an event loop in a thread of its own, with token ids and log-probabilities.
        problems: what is trained on. The messages of each are TRL's prompt, so no two may have the same.
        publish: gives a step's weights to the model server; called with TRL's model before the rollouts of the step.
        seed: each rollout's ``completion_params`` have a ``seed`` of their own, made of this; ``None`` leaves them be.

    Raises:
        ValueError: two problems have the same messages.
        TrainerError: on entry, if the callbacks have no port.
    """

    def __init__(
        self,
        complete: Completer,
        problems: Sequence[RolloutRequest],
        *,
        server_url: str,
        publish: Callable[[Any], None],
        server_api_key: str | None = None,
        limits: TrainerLimits | None = None,
        redispatch: RedispatchPolicy | None = None,
        seed: int | None = None,
    ) -> None:
        self.prompts = [{"prompt": problem.messages} for problem in problems]
        """Rows of TRL's ``train_dataset``."""
        self.outcomes: list[list[RolloutOutcome]] = []
        """Of the last call: the attempts at each of its prompts."""
        self._problems = {_key(problem.messages): problem for problem in problems}
        if len(self._problems) < len(problems):
            raise ValueError(
                "Two problems have the same messages: TRL gives a rollout_func nothing else to tell them by."
            )
        self._trainer = Trainer(complete, server_url=server_url, server_api_key=server_api_key, limits=limits)
        self._publish = publish
        self._redispatch = redispatch or RedispatchPolicy()
        self._seed = seed
        # A server knows the rollouts of earlier runs by their ids, and would refuse another under one of them.
        self._run_id = secrets.token_hex(4)
        self._calls = 0
        self._without_reward = 0
        self._step: int | None = None
        self._loop = asyncio.new_event_loop()
        self._leave = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rollouts", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        entered: Future[None] = Future()
        self._serving = asyncio.run_coroutine_threadsafe(self._serve(entered), self._loop)
        try:
            entered.result()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._leave.set)
        self._serving.exception()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, entered: "Future[None]") -> None:
        try:
            async with self._trainer:
                entered.set_result(None)
                await self._leave.wait()
        except BaseException as error:
            if not entered.done():
                entered.set_exception(error)
            raise

    def __call__(self, prompts: Sequence[Sequence[Mapping[str, Any]]], trainer: Any) -> dict[str, list[Any]]:
        """What ``GRPOTrainer`` asks of a ``rollout_func``; ``reward`` goes to the reward function below.

        Raises:
            TokensError: a turn has no ids, or its conversation was tokenised anew.
            TrainerError: a prompt is no problem's, no rollout has a reward, or one has several rows, as its
                conversation was compacted or branched: TRL takes one of each.
            RuntimeError: outside of its ``with``.
        """
        if not self._thread.is_alive():
            raise RuntimeError("ServerRollouts are called within their 'with'.")
        if unknown := [prompt for prompt in prompts if _key(prompt) not in self._problems]:
            raise TrainerError(
                f"{len(unknown)} of TRL's {len(prompts)} prompts are no problem's: train on rollouts.prompts."
            )
        work = self._play(prompts, trainer.model, trainer.state.global_step)
        self.outcomes = asyncio.run_coroutine_threadsafe(work, self._loop).result()
        last = [attempts[-1] for attempts in self.outcomes]
        self._look_for_rewards(last)
        columns: dict[str, list[Any]] = {
            name: [] for name in ("prompt_ids", "completion_ids", "logprobs", "env_mask", "reward")
        }
        for outcome in last:
            for name, value in _example(outcome).items():
                columns[name].append(value)
        return columns

    @staticmethod
    def reward(reward: list[float | None], **_: Any) -> list[float | None]:
        """TRL's reward function: what the server said."""
        return reward

    def _look_for_rewards(self, last: Sequence[RolloutOutcome]) -> None:
        if all(outcome.outcome is Ending.REFUSED for outcome in last):
            raise TrainerError(f"The server refused all {len(last)} rollouts. {last[0].problem}")
        for outcome in last:
            self._without_reward = 0 if outcome.reward is not None else self._without_reward + 1
            if self._without_reward and self._without_reward % TOLD_AFTER == 0:
                logger.warning("%d rollouts in a row have no reward. The last: %s", self._without_reward, _why(outcome))
        if all(outcome.reward is None for outcome in last):
            raise TrainerError(
                f"No reward came of {counted(len(last), 'rollout')}, so there is nothing to learn from. The last:"
                f" {_why(last[-1])}"
            )

    async def _play(
        self, prompts: Sequence[Sequence[Mapping[str, Any]]], model: Any, step: int
    ) -> list[list[RolloutOutcome]]:
        if step != self._step:
            async with self._trainer.weights_update():
                await asyncio.to_thread(self._publish, model)
            self._step = step
        self._calls += 1
        async with asyncio.TaskGroup() as samples:
            tasks = [
                samples.create_task(self._trainer.run_again(self._request(prompt, number), self._redispatch))
                for number, prompt in enumerate(prompts)
            ]
        return [task.result() for task in tasks]

    def _request(self, prompt: Sequence[Mapping[str, Any]], number: int) -> RolloutRequest:
        problem = self._problems[_key(prompt)]
        params = dict(problem.completion_params)
        if self._seed is not None:
            params["seed"] = random.Random(f"{self._seed}/{self._calls}/{number}").getrandbits(31)  # noqa: S311 - a seed of samples, not a secret
        rollout_id = f"{problem.rollout_id}-{self._run_id}-{self._calls}-{number}"
        return problem.model_copy(
            update={"rollout_id": rollout_id, "idempotency_key": None, "completion_params": params}
        )


def _why(outcome: RolloutOutcome) -> str:
    return f"{outcome.outcome.value}. {outcome.problem or 'Its reward function gave none.'}"


def _example(outcome: RolloutOutcome) -> dict[str, Any]:
    """One rollout in TRL's words: what follows the first prompt is its completion, and the mask says whose it is."""
    if outcome.reward is None or not outcome.tokens:
        return {
            "prompt_ids": [NOTHING],
            "completion_ids": [NOTHING],
            "logprobs": [0.0],
            "env_mask": [0],
            "reward": None,
        }
    row, *others = training_rows(outcome.tokens)
    if others:
        raise TrainerError(
            f"{outcome.request.rollout_id} makes {1 + len(others)} training rows, as its agent rewrote what was said:"
            " TRL takes one of a rollout. Keep the conversation whole, or use the trainer library's groups."
        )
    return {
        "prompt_ids": list(row.ids[: row.prompt_length]),
        "completion_ids": list(row.ids[row.prompt_length :]),
        "logprobs": list(row.logprobs[row.prompt_length :]),
        "env_mask": list(row.mask[row.prompt_length :]),
        "reward": outcome.reward,
    }


def _key(messages: Iterable[Any]) -> str:
    """The same for a prompt that has been through a table, in which every message has every field."""
    return json.dumps(_told(messages), sort_keys=True)


def _told(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _told(of_name) for name, of_name in value.items() if of_name is not None}
    return list(map(_told, value)) if isinstance(value, list | tuple) else value
