"""The steps of a run: TRL trains in a thread of its own, and asks for rollouts, which the event loop runs.

Invariants: the weights that sample are those after the last whole step; a step that is cut off, by the time or by its
user, leaves no trace but the lines of its rollouts; however it ends, the checkpoint of the last whole step is kept.
"""

import asyncio
import logging
import math
import random
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PrinterCallback, TrainerCallback
from transformers.utils.logging import disable_progress_bar

from osmosis_ai.rollout.trainer import Trainer
from training import records
from training.config import TrainingConfig
from training.display import Display
from training.engine import Engine
from training.learner import SharedPromptTrainer, grpo_config
from training.records import RunFolder
from training.rollouts import Played, RolloutRunner, Task
from training.summary import step_record
from training.trajectory import Segment
from training.weights import Model, copy_weights

STATS = {
    "loss": "loss",
    "gradient_norm": "grad_norm",
    "clipped_share": "clip_ratio/region_mean",
    "kl": "kl",
    "entropy": "entropy",
}
"""What a line of ``steps.jsonl`` takes from TRL's log, and what it is called there."""
NOTHING = Segment(ids=[0, 0], is_sampled=[False, False], logprobs=[0.0, 0.0])
"""TRL's row of a rollout in which nothing was sampled, or which has no reward."""


class StepStoppedError(Exception):
    """The step is to be left out."""


class Steps(TrainerCallback):  # type: ignore[misc]
    """Takes the steps of one run, on ``rows``. ``train`` belongs to the event loop of the trainer, the rest to TRL."""

    def __init__(
        self,
        config: TrainingConfig,
        rows: Sequence[Mapping[str, Any]],
        model: Model,
        folder: RunFolder,
        display: Display,
    ) -> None:
        self._config = config
        self._rows = rows
        self._model = model
        self._folder = folder
        self._display = display
        # The display shows what there is to see; a rollout without a reward, which TRL warns of, is counted there.
        disable_progress_bar()
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        logging.getLogger("trl").setLevel(logging.ERROR)
        # A prompt is for TRL the number of its row; fewer rows than a step takes come several times.
        copies = -(-config.problems_per_step // len(rows))
        self._learner = SharedPromptTrainer(
            AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32),
            reward_funcs=lambda reward, **_: reward,
            args=grpo_config(config, folder.path / records.CHECKPOINTS, next(iter(model.weights.values())).dtype),
            train_dataset=Dataset.from_dict({"prompt": [str(number) for number in range(len(rows))] * copies}),
            processing_class=model.tokenizer,
            rollout_func=self._rollouts,
            callbacks=[self],
            decoder=model.decoder,
            go_on=self._go_on,
        )
        self._learner.remove_callback(PrinterCallback)

    async def train(self, engine: Engine, runner: RolloutRunner, trainer: Trainer) -> None:
        """Until all steps are taken or the time is up. Cancelled, it keeps the checkpoint first.

        Raises:
            TrainerError: if the server refuses the rollouts.
        """
        self._loop = asyncio.get_running_loop()
        self._engine, self._runner, self._trainer = engine, runner, trainer
        self._playing: Future[list[Played]] | None = None
        self._started = time.monotonic()
        self._ends = self._started + self._config.minutes * 60
        training = asyncio.ensure_future(asyncio.to_thread(self._train))
        try:
            await asyncio.shield(training)
        except asyncio.CancelledError:
            self._ends = -math.inf
            if self._playing is not None:
                self._playing.cancel()
            await asyncio.wait([training])
            raise

    def _train(self) -> None:
        learner, saved = self._learner, self._folder.checkpoint()
        try:
            learner.train(resume_from_checkpoint=saved and str(saved))
        except StepStoppedError:
            self._display.note(f"Step {learner.state.global_step + 1} was cut off, and is left out.")
        finally:
            if learner.state.global_step > self._folder.steps_saved():
                learner._save_checkpoint(learner.model, trial=None)

    def _go_on(self) -> None:
        if time.monotonic() > self._ends:
            raise StepStoppedError

    def _rollouts(self, prompts: Sequence[str], learner: SharedPromptTrainer) -> dict[str, list[Any]]:
        """TRL's ``rollout_func``, called once a step."""
        self._step_started, self._sampled_before = time.monotonic(), self._engine.stats.sampled_tokens
        work = self._runner.run(self._tasks(prompts, learner.state.global_step))
        self._playing = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            self._played = self._playing.result(self._ends - time.monotonic())
        except (CancelledError, TimeoutError):
            self._playing.cancel()
            raise StepStoppedError from None
        self._rollout_seconds = time.monotonic() - self._step_started
        examples = list(map(_example, self._played))
        return {name: [example[name] for example in examples] for name in examples[0]}

    def _tasks(self, prompts: Sequence[str], step: int) -> list[Task]:
        config = self._config
        tasks = []
        for number, prompt in enumerate(prompts):
            group, sample = divmod(number, config.samples)
            rollout_id = f"s{config.seed}-{step}-{group}-{sample}-{int(time.time() * 1000):x}"
            seed = random.Random(f"{config.seed}/{step}/{number}").getrandbits(31)  # noqa: S311 - of samples, no secret
            tasks.append(Task(rollout_id, self._rows[int(prompt)], seed, config.temperature))
        return tasks

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **named: Any) -> None:
        """A step is done: its weights sample from here on. What comes after all steps has no loss."""
        del args, named
        if "loss" not in logs:
            return
        trained = dict(self._learner.model.named_parameters())
        self._engine.update(lambda: copy_weights(trained, self._model.weights))
        now, size = time.monotonic(), self._config.samples
        groups = [self._played[at : at + size] for at in range(0, len(self._played), size)]
        stats = {name: logs.get(theirs, 0.0) for name, theirs in STATS.items()} if "entropy" in logs else None
        sampled = self._engine.stats.sampled_tokens - self._sampled_before
        record = step_record(state.global_step, groups, stats) | {
            "rollout_seconds": round(self._rollout_seconds, 2),
            "tokens_per_second": round(sampled / self._rollout_seconds, 1),
            "seconds": round(now - self._step_started, 2),
            "training_seconds": round(now - self._started, 1),
            "repeated_results": self._trainer.repeated_results,
            "late_results": self._trainer.late_results,
        }
        self._folder.append(records.STEPS, record)
        self._display.step(record, max(0.0, self._ends - now))
        if 2 * now - self._step_started > self._ends:  # another would not be done in time
            control.should_training_stop = True


def _example(played: Played) -> dict[str, Any]:
    """One rollout in TRL's words. It takes one row of each, so of a conversation that was rewritten it is the last."""
    sampled = [one for one in played.trajectory.segments if one.sampled_count and played.reward is not None]
    row = sampled[-1] if sampled else NOTHING
    start = row.is_sampled.index(True) if sampled else 1
    return {
        "prompt_ids": row.ids[:start],
        "completion_ids": row.ids[start:],
        "logprobs": row.logprobs[start:],
        "env_mask": [int(used) for used in row.is_sampled[start:]],
        "reward": played.reward,
    }
