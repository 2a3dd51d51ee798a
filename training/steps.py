"""The steps of a run: TRL trains in a thread of its own, and asks for rollouts, which the event loop runs.

Invariants: the weights that sample are those after the last whole step; a step that is cut off, by the time or by its
user, leaves no trace but the lines of its rollouts; however it ends, the checkpoint of the last whole step is kept.
"""

import asyncio
import logging
import os
import random
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any

import torch

from osmosis_ai.rollout.trainer import Trainer
from training import records
from training.config import TrainingConfig
from training.display import Display
from training.engine import Engine
from training.records import RunFolder
from training.rollouts import Played, RolloutRunner, Task
from training.summary import step_record
from training.weights import Model, copy_weights

if TYPE_CHECKING:
    from training.learner import SharedPromptTrainer

STATS = {
    "loss": "loss",
    "gradient_norm": "grad_norm",
    "clipped_share": "clip_ratio/region_mean",
    "kl": "kl",
    "entropy": "entropy",
}
"""What a line of ``steps.jsonl`` takes from TRL's log, and what it is called there."""


class StepStoppedError(Exception):
    """The step is to be left out."""


class Steps:
    """Takes the steps of one run. ``train`` belongs to the event loop of ``trainer``."""

    def __init__(
        self,
        config: TrainingConfig,
        rows: Sequence[Mapping[str, Any]],
        model: Model,
        *,
        engine: Engine,
        runner: RolloutRunner,
        trainer: Trainer,
        folder: RunFolder,
        display: Display,
    ) -> None:
        self._config = config
        self._rows = rows
        self._model = model
        self._engine = engine
        self._runner = runner
        self._trainer = trainer
        self._folder = folder
        self._display = display
        self._is_stopped = False
        self._playing: Future[list[Played]] | None = None
        self._played: list[Played] = []

    async def train(self) -> None:
        """Until all steps are taken or the time is up. Cancelled, it keeps the checkpoint first.

        Raises:
            TrainerError: if the server refuses the rollouts.
        """
        self._loop = asyncio.get_running_loop()
        learner = await asyncio.to_thread(self._learner)
        seconds = self._config.minutes * 60
        self._started = time.monotonic()
        self._ends = self._started + seconds
        training = asyncio.ensure_future(asyncio.to_thread(self._train, learner))
        try:
            await asyncio.wait([training], timeout=seconds)
        finally:
            self._is_stopped = True
            if self._playing is not None:
                self._playing.cancel()
            await asyncio.wait([training])
            training.exception()  # cancelled, nobody else asks for it
        if await training:
            self._display.note(f"The time is up within step {learner.state.global_step + 1}, which is left out.")

    def _go_on(self) -> None:
        if self._is_stopped:
            raise StepStoppedError

    def _learner(self) -> "SharedPromptTrainer":
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        from datasets import Dataset
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging as transformers_logging

        # The display shows what there is to see; a rollout without a reward, which TRL warns of, is counted there.
        transformers_logging.disable_progress_bar()
        logging.getLogger("trl").setLevel(logging.ERROR)

        from training.learner import StepCallback, grpo_trainer

        config = self._config
        # A prompt is for TRL the number of its row; fewer rows than a step takes come several times.
        copies = -(-config.problems_per_step // len(self._rows))
        prompts = [{"prompt": str(number)} for number in range(len(self._rows))] * copies
        return grpo_trainer(
            config,
            self._folder.checkpoints,
            AutoModelForCausalLM.from_pretrained(self._model.folder, dtype=torch.float32),
            dtype=next(iter(self._model.weights.values())).dtype,
            callback=StepCallback(self._go_on, self._stepped),
            decoder=self._model.decoder,
            go_on=self._go_on,
            reward_funcs=_reward,
            train_dataset=Dataset.from_list(prompts),
            processing_class=self._model.tokenizer,
            rollout_func=self._rollouts,
        )

    def _train(self, learner: "SharedPromptTrainer") -> bool:
        """Whether it was cut off within a step."""
        checkpoint = self._folder.checkpoint()
        try:
            learner.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        except StepStoppedError:
            return True
        finally:
            if learner.optimizer is not None:
                self._publish(learner)
                if self._folder.steps_saved() != learner.state.global_step:
                    learner._save_checkpoint(learner.model, trial=None)
        return False

    def _publish(self, learner: "SharedPromptTrainer") -> None:
        trained = dict(learner.model.named_parameters())
        self._engine.update(lambda: copy_weights(trained, self._model.weights))

    def _rollouts(self, prompts: Sequence[str], learner: "SharedPromptTrainer") -> dict[str, list[Any]]:
        """TRL's ``rollout_func``, called once a step."""
        tasks = self._tasks(prompts, learner.state.global_step)
        self._playing = asyncio.run_coroutine_threadsafe(self._play(tasks, learner), self._loop)
        try:
            self._played = self._playing.result()
        except CancelledError:
            raise StepStoppedError from None
        columns: dict[str, list[Any]] = {}
        for played in self._played:
            for name, value in _example(played).items():
                columns.setdefault(name, []).append(value)
        return columns

    async def _play(self, tasks: Sequence[Task], learner: "SharedPromptTrainer") -> list[Played]:
        self._step_started = time.monotonic()
        if self._is_stopped:
            raise asyncio.CancelledError
        async with self._trainer.weights_update():
            await asyncio.to_thread(self._publish, learner)
        started, sampled_before = time.monotonic(), self._engine.stats.sampled_tokens
        played = await self._runner.run(tasks)
        self._rollout_seconds = time.monotonic() - started
        self._sampled = self._engine.stats.sampled_tokens - sampled_before
        return played

    def _tasks(self, prompts: Sequence[str], step: int) -> list[Task]:
        config = self._config
        tasks = []
        for number, prompt in enumerate(prompts):
            group, sample = divmod(number, config.samples)
            rollout_id = f"s{config.seed}-{step}-{group}-{sample}-{int(time.time() * 1000):x}"
            seed = random.Random(f"{config.seed}/{step}/{number}").getrandbits(31)  # noqa: S311 - of samples, no secret
            tasks.append(Task(rollout_id, self._rows[int(prompt)], seed, config.temperature))
        return tasks

    def _stepped(self, step: int, logs: Mapping[str, Any]) -> bool:
        """Put the step on record; whether another would be done in time."""
        now = time.monotonic()
        seconds, size = now - self._step_started, self._config.samples
        groups = [self._played[at : at + size] for at in range(0, len(self._played), size)]
        stats = {name: logs.get(theirs, 0.0) for name, theirs in STATS.items()} if "entropy" in logs else None
        record = step_record(step, groups, stats) | {
            "rollout_seconds": round(self._rollout_seconds, 2),
            "tokens_per_second": round(self._sampled / self._rollout_seconds, 1),
            "seconds": round(seconds, 2),
            "training_seconds": round(now - self._started, 1),
            "repeated_results": self._trainer.repeated_results,
            "late_results": self._trainer.late_results,
        }
        self._folder.append(records.STEPS, record)
        self._display.step(record, max(0.0, self._ends - now))
        return now + seconds < self._ends


def _reward(reward: list[float | None], **_: Any) -> list[float | None]:
    """TRL's reward function: what the server said. What has no reward, TRL leaves out of its group's mean."""
    return reward


def _example(played: Played) -> dict[str, Any]:
    """One rollout in TRL's words. It takes one row of each, so of a conversation that was rewritten it is the last."""
    segments = [one for one in played.trajectory.segments if one.sampled_count]
    if played.reward is None or not segments:
        # One token that carries no loss.
        return {"prompt_ids": [0], "completion_ids": [0], "logprobs": [0.0], "env_mask": [0], "reward": played.reward}
    last = segments[-1]
    start = last.is_sampled.index(True)
    return {
        "prompt_ids": last.ids[:start],
        "completion_ids": last.ids[start:],
        "logprobs": last.logprobs[start:],
        "env_mask": [int(used) for used in last.is_sampled[start:]],
        "reward": played.reward,
    }
