"""One training run: server up, evaluate, train step after step, evaluate again, report.

A step: ``problems_per_step`` rows times ``samples`` rollouts go out as inits; the server's agent calls back for
completions, which the policy samples and records; results come back with rewards; TRL makes one optimizer step of the
groups with spread; the new weights are published to the engine.
"""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import torch
from safetensors.torch import load_file

from osmosis_ai.rollout.trainer import RedispatchPolicy, ServerKeeper, Trainer, TrainerLimits
from osmosis_ai.rollout.trainer.server_keeper import Restart
from training import records
from training.chat import ChatFormat
from training.config import SETTINGS_FILE, TrainingConfig
from training.datasets import read_datasets
from training.display import Display
from training.engine import Engine
from training.policy import Policy, TokenBudget
from training.problems import write_rows
from training.records import RunFolder
from training.report import write_report
from training.rollouts import Played, RolloutRunner, RolloutShape, Task, outcomes_of
from training.steps import Steps
from training.summary import summarized
from training.weights import WEIGHTS_FILE, copy_weights, load_model, number_type, save_model

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
        self._steps = Steps(config, self._datasets.training, self._model, self._folder, display)
        if (checkpoint := self._folder.checkpoint()) is not None:
            copy_weights(load_file(checkpoint / WEIGHTS_FILE), self._model.weights)
        if is_resumed:
            self._folder.drop_steps_after(self._folder.steps_saved())

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
        if self._config.steps is None or self._folder.steps_saved() < self._config.steps:
            await self._steps.train(engine, runner, trainer)
        evaluations["after"] = await self._evaluate(runner, "after")
        self._folder.write(records.EVALUATIONS, evaluations)

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
