"""``python -m examples.trl.train --server URL``: TRL's ``GRPOTrainer`` on the calculator, through its rollout server.

What TRL would leave to vLLM is done by the sampler of ``training/``, which serves completions on two cores.
"""

import argparse
import functools
import json
import os
import sys
from contextlib import closing
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

from examples.trl.rollouts import ServerRollouts
from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.run.data.dataset import DatasetRow, dataset_row_to_request
from osmosis_ai.rollout.trainer import TrainerError, TrainerLimits
from training.chat import ChatFormat
from training.engine import Engine
from training.learner import SharedPromptTrainer
from training.policy import Policy, TokenBudget
from training.problems import Level, training_rows, worked_examples
from training.weights import SMOLLM2, NumberType, copy_weights, load_model, number_type

SERVER_KEY_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_API_KEY"
MAX_TURNS = 2
MAX_TOKENS = 44
CONTEXT = 512


def problems(count: int, temperature: float) -> list[RolloutRequest]:
    """Arithmetic in words, after two worked examples, without which a model of this size calls no tool."""
    params = {"temperature": temperature, "max_tokens": MAX_TOKENS}
    made = []
    for number, row in enumerate(training_rows(Level.ONE_STEP, count, seed=0)):
        request = dataset_row_to_request(
            DatasetRow(**row),  # type: ignore[typeddict-item]
            number,
            max_turns=MAX_TURNS,
            max_tokens_total=CONTEXT - 1,
            completion_params=params,
            rollout_id=f"trl-{number}",
        )
        system, user = request.messages
        made.append(request.model_copy(update={"messages": [system, *worked_examples(Level.ONE_STEP), user]}))
    return made


def main() -> int:
    """Train; exit code 1 if the server cannot be used, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help=f"Its key comes from {SERVER_KEY_VARIABLE}.")
    parser.add_argument("--output", type=Path, default=Path("runs/trl"), help="Folder for log.jsonl [runs/trl].")
    parser.add_argument("--steps", type=int, default=30, help="[30]")
    parser.add_argument("--model", default=SMOLLM2, help=f"A folder, or [{SMOLLM2}].")
    parser.add_argument("--problems", type=int, default=1000, help="Different ones [1000].")
    parser.add_argument("--problems-per-step", type=int, default=4, help="[4]")
    parser.add_argument("--samples", type=int, default=8, help="Rollouts of each problem [8].")
    parser.add_argument("--temperature", type=float, default=1.0, help="[1.0]")
    parser.add_argument("--learning-rate", type=float, default=2e-5, help="[2e-5]")
    parser.add_argument("--seed", type=int, default=0, help="Of the order and the sampling [0].")
    parser.add_argument("--plain", action="store_true", help="TRL's own forward pass.")
    parser.add_argument("--device", default="cpu", help="Of sampler and trainer: cpu or cuda [cpu].")
    parser.add_argument("--threads", type=int, help="CPU threads; by default what PyTorch takes.")
    parser.add_argument("--model-cache", type=Path, default=Path("runs/models"), help="[runs/models]")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    try:
        train(given)
    except TrainerError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def train(given: argparse.Namespace) -> None:
    """One run."""
    device = torch.device(given.device)
    dtype, why = number_type(NumberType.AUTO, device)
    print(why)  # noqa: T201 - a command's output
    served = load_model(given.model, given.model_cache, device, dtype)
    chat = ChatFormat(served.tokenizer)
    batch = given.problems_per_step * given.samples
    engine = Engine(served.decoder, served.weights, chat, rows=batch, max_length=CONTEXT)
    policy = Policy(engine, chat, TokenBudget(turn=MAX_TOKENS, rollout=MAX_TOKENS + 14))
    rollouts = ServerRollouts(
        policy.complete,
        problems(given.problems, given.temperature),
        server_url=given.server,
        server_api_key=os.environ.get(SERVER_KEY_VARIABLE) or None,
        publish=lambda model: engine.update(lambda: copy_weights(dict(model.named_parameters()), served.weights)),
        limits=TrainerLimits(concurrency=batch),
        seed=given.seed,
    )
    settings = GRPOConfig(
        output_dir=str(given.output),
        use_cpu=device.type == "cpu",
        bf16=dtype is torch.bfloat16,
        max_steps=given.steps,
        seed=given.seed,
        num_generations=given.samples,
        per_device_train_batch_size=given.samples if given.plain else batch,
        gradient_accumulation_steps=given.problems_per_step if given.plain else 1,
        temperature=given.temperature,
        learning_rate=given.learning_rate,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        beta=0.0,
        max_completion_length=CONTEXT,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    model = AutoModelForCausalLM.from_pretrained(served.folder, dtype=torch.float32)
    kind = GRPOTrainer if given.plain else functools.partial(SharedPromptTrainer, decoder=served.decoder)
    with closing(engine), rollouts:
        trainer = kind(
            model,
            rollouts.reward,
            args=settings,
            train_dataset=Dataset.from_list(rollouts.prompts),
            processing_class=served.tokenizer,
            rollout_func=rollouts,
        )
        try:
            trainer.train()
        finally:
            steps = [line for line in trainer.state.log_history if "reward" in line]
            lines = "".join(json.dumps(step) + "\n" for step in steps)
            (given.output / "log.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
