"""One training run: server up, evaluate, train step after step, evaluate again, report.

A step: ``problems_per_step`` rows times ``samples`` rollouts go out as inits; the server's agent calls back for
completions, which the policy samples and records; results come back with rewards; GRPO turns the groups with spread
into one optimizer step; the new weights are published to the engine.
"""

import asyncio
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from osmosis_ai.rollout.trainer import RedispatchPolicy, ServerKeeper, Trainer, TrainerLimits
from osmosis_ai.rollout.trainer.server_keeper import Restart
from training import records
from training.chat import ChatFormat
from training.config import SETTINGS_FILE, TrainingConfig
from training.datasets import read_datasets
from training.display import Display
from training.engine import Engine
from training.grpo import GrpoSettings, Learner, Sample, StepStats, advantages
from training.policy import Policy, TokenBudget
from training.problems import write_rows
from training.records import RunFolder
from training.report import write_report
from training.rollouts import Played, RolloutRunner, RolloutShape, Task, outcomes_of
from training.summary import step_record, summarized
from training.weights import load_model, number_type, save_model

SERVER_KEY_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_API_KEY"
JOURNAL = "server-journal.db"


class Run:
    """A training run from its settings to its report."""

    def __init__(self, config: TrainingConfig, display: Display, *, is_resumed: bool = False) -> None:
        self._config = config
        self._display = display
        device = torch.device(config.device)
        dtype, why = number_type(config.dtype, device)
        display.note(why)
        self._folder = RunFolder(config.output, is_resumed=is_resumed)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self._datasets = read_datasets(config)
        self._folder.write(SETTINGS_FILE, config.model_dump(mode="json"))
        for name, rows in [("train", self._datasets.training), *self._datasets.held_out.items()]:
            write_rows(rows, config.output / "datasets" / f"{name}.jsonl")
        display.note("Loading the model.")
        self._model = load_model(config.model, config.model_cache, device, dtype)
        self._chat = ChatFormat(self._model.tokenizer, config.tool_prompt)
        start = {name: tensor.clone() for name, tensor in self._model.weights.items()} if config.kl else None
        self._learner = Learner(self._model.decoder, self._model.weights, grpo_settings(config), start)
        if is_resumed:
            self._learner.restore(self._folder.load_checkpoint())
            self._folder.drop_steps_after(self._learner.steps_done)

    async def run(self) -> None:
        """Do all of it. Cancelled, it still keeps a checkpoint and writes the report of what there is.

        Raises:
            TrainerError: if the server cannot be started, reached or kept running.
        """
        config = self._config
        engine = Engine(
            self._model.decoder, self._model.weights, self._chat, rows=config.concurrency, max_length=config.context
        )
        policy = Policy(engine, self._chat, TokenBudget(turn=config.max_tokens_turn, rollout=config.rollout_tokens))
        try:
            async with self._serving(policy) as (trainer, keeper):
                work = self._work(self._runner(trainer, policy), engine, trainer)
                await (work if keeper is None else keeper.guard(work))
        finally:
            engine.close()
            save_model(self._model.weights, self._model.folder, self._folder.path / records.MODEL)
            write_report(self._folder.path)

    @asynccontextmanager
    async def _serving(self, policy: Policy) -> AsyncIterator[tuple[Trainer, ServerKeeper | None]]:
        config = self._config
        limits = TrainerLimits(concurrency=config.concurrency, rollout_timeout_seconds=config.rollout_timeout_seconds)
        if config.server is not None:
            key = os.environ.get(SERVER_KEY_VARIABLE) or None
            async with Trainer(
                policy.complete,
                server_url=config.server,
                server_api_key=key,
                host=config.callback_host,
                port=config.callback_port,
                callback_url=config.callback_url,
                limits=limits,
            ) as trainer:
                await trainer.check_server()
                yield trainer, None
            return
        keeper = ServerKeeper(("-m", config.agent), journal=self._folder.path / JOURNAL, on_restart=self._note_restart)
        async with Trainer(
            policy.complete, server_url=keeper.url, server_api_key=keeper.api_key, limits=limits
        ) as trainer:
            self._display.note(f"Starting the rollout server for {config.agent}.")
            async with keeper.serving(trainer):
                self._folder.append(records.SERVER, {"event": "started", "pid": keeper.pid, "at": time.time()})
                yield trainer, keeper

    def _note_restart(self, restart: Restart) -> None:
        self._folder.append(records.SERVER, {"event": "restarted", **asdict(restart)})
        self._display.note(f"The server died and was back after {restart.recovery_seconds:.1f} s.")

    def _runner(self, trainer: Trainer, policy: Policy) -> RolloutRunner:
        config = self._config
        shape = RolloutShape(
            examples=self._datasets.examples,
            max_turns=config.turns,
            max_tokens_turn=config.max_tokens_turn,
            # One less than the cache, so that the server's count never promises what the cache cannot hold.
            context=config.context - 1,
        )
        return RolloutRunner(trainer, policy, shape, RedispatchPolicy(max_attempts=config.attempts), self._note_played)

    def _note_played(self, played: Played) -> None:
        for attempt in played.attempts:
            record = asdict(attempt) | {"outcome": attempt.outcome.value}
            self._folder.append(records.ROLLOUTS, record)
        self._display.count(outcomes_of([played]))

    async def _work(self, runner: RolloutRunner, engine: Engine, trainer: Trainer) -> None:
        evaluations = records.read_document(self._folder.path / records.EVALUATIONS) or {}
        if "before" not in evaluations:
            evaluations["before"] = await self._evaluate(runner, "before")
            self._folder.write(records.EVALUATIONS, evaluations)
        try:
            await self._train(runner, engine, trainer)
        finally:
            self._folder.save_checkpoint(self._learner.state())
        evaluations["after"] = await self._evaluate(runner, "after")
        self._folder.write(records.EVALUATIONS, evaluations)

    async def _train(self, runner: RolloutRunner, engine: Engine, trainer: Trainer) -> None:
        config = self._config
        started = time.monotonic()
        ends = started + config.minutes * 60
        last_seconds = 0.0
        # A step that would not be done in time is not begun, and one that is not done when the time is up is left out.
        while time.monotonic() + last_seconds < ends and (
            config.steps is None or self._learner.steps_done < config.steps
        ):
            step_started = time.monotonic()
            try:
                async with asyncio.timeout(ends - step_started):
                    record = await self._step(runner, engine)
            except TimeoutError:
                self._display.note(f"The time is up within step {self._learner.steps_done + 1}, which is left out.")
                break
            last_seconds = time.monotonic() - step_started
            record |= {
                "seconds": round(last_seconds, 2),
                "training_seconds": round(time.monotonic() - started, 1),
                "repeated_results": trainer.repeated_results,
                "late_results": trainer.late_results,
            }
            self._folder.append(records.STEPS, record)
            self._display.step(record, max(0.0, ends - time.monotonic()))
            if config.checkpoint_steps and self._learner.steps_done % config.checkpoint_steps == 0:
                await asyncio.to_thread(self._folder.save_checkpoint, self._learner.state())

    async def _step(self, runner: RolloutRunner, engine: Engine) -> dict[str, Any]:
        step = self._learner.steps_done
        started = time.monotonic()
        sampled_before = engine.stats.sampled_tokens
        groups = _in_groups(await runner.run(self._tasks(step)), self._config.samples)
        rollout_seconds = time.monotonic() - started
        samples, skipped = self._samples(groups)
        stats: StepStats | None = None
        if samples:
            stats = await _unless_cancelled(partial(self._learn, samples, step + 1, engine))
        self._learner.steps_done = step + 1
        played = [one for group in groups for one in group]
        return step_record(step + 1, played, stats, skipped) | {
            "rollout_seconds": round(rollout_seconds, 2),
            "tokens_per_second": round((engine.stats.sampled_tokens - sampled_before) / rollout_seconds, 1),
        }

    def _learn(
        self, samples: Sequence[Sample], step: int, engine: Engine, is_cancelled: threading.Event
    ) -> StepStats | None:
        stats = self._learner.step(samples, is_cancelled.is_set)
        if stats is not None:
            engine.update(self._learner.publish)
            self._learner.steps_done = step
        return stats

    def _tasks(self, step: int) -> list[Task]:
        config = self._config
        rows = self._datasets.training
        tasks = []
        for group in range(config.problems_per_step):
            number = step * config.problems_per_step + group
            epoch, place = divmod(number, len(rows))
            order = list(range(len(rows)))
            random.Random(f"{config.seed}/{epoch}").shuffle(order)  # noqa: S311 - an order, not a secret
            for sample in range(config.samples):
                rollout_id = f"s{config.seed}-{step}-{group}-{sample}-{int(time.time() * 1000):x}"
                seed = random.Random(f"{config.seed}/{number}/{sample}").getrandbits(31)  # noqa: S311 - as above, of samples
                tasks.append(Task(rollout_id, rows[order[place]], seed, config.temperature))
        return tasks

    def _samples(self, groups: Sequence[Sequence[Played]]) -> tuple[list[Sample], int]:
        """What to train on, and how many groups had no spread."""
        samples: list[Sample] = []
        skipped = 0
        for group in groups:
            rewarded = [played for played in group if played.reward is not None]
            weights = advantages([played.reward or 0.0 for played in rewarded], self._config.advantage_epsilon)
            if weights is None:
                skipped += 1
                continue
            for played, advantage in zip(rewarded, weights, strict=True):
                samples += [Sample(one, advantage) for one in played.trajectory.segments if one.sampled_count]
        return samples, skipped

    async def _evaluate(self, runner: RolloutRunner, when: str) -> dict[str, Any]:
        config = self._config
        evaluation: dict[str, Any] = {}
        temperatures = {"sampled": config.temperature} | ({"greedy": 0.0} if config.eval_greedy else {})
        for name, rows in self._datasets.held_out.items():
            for mode, temperature in temperatures.items():
                self._display.begin_evaluation(when, name, mode, len(rows))
                started = time.monotonic()
                tasks = [
                    Task(
                        f"s{config.seed}-{when}-{name}-{mode}-{number}-{int(time.time() * 1000):x}",
                        row,
                        number,
                        temperature,
                    )
                    for number, row in enumerate(rows)
                ]
                played = await runner.run(tasks)
                summary = summarized(played) | {"seconds": round(time.monotonic() - started, 1)}
                evaluation[f"{name} ({mode})"] = summary
                self._display.evaluation(when, name, mode, summary)
        return evaluation


def grpo_settings(config: TrainingConfig) -> GrpoSettings:
    """The part of the settings that the learner needs."""
    return GrpoSettings(
        learning_rate=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        clip_ratio=config.clip_ratio,
        kl=config.kl,
        micro_batch=config.micro_batch,
        temperature=config.temperature,
        warmup_steps=config.warmup_steps,
    )


async def _unless_cancelled(work: Callable[[threading.Event], StepStats | None]) -> StepStats | None:
    """Run ``work`` in a thread. Cancelled, it is told so and waited for, so that no checkpoint holds half a step."""
    is_cancelled = threading.Event()
    running = asyncio.ensure_future(asyncio.to_thread(work, is_cancelled))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        is_cancelled.set()
        await asyncio.wait([running])
        raise


def _in_groups(batch: list[Played], size: int) -> list[list[Played]]:
    return [batch[at : at + size] for at in range(0, len(batch), size)]
