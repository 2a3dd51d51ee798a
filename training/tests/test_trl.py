"""TRL trains the start model through a real server, and its shorter pass is that of transformers."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.processes import ServingProgram
from transformers import AutoModelForCausalLM

from examples.trl.train import SERVER_KEY_VARIABLE
from training.learner import SharedPromptTrainer
from training.model import Weights
from training.weights import Model

ROOT = Path(__file__).parents[2]
KEY = "key-of-the-test"
FP32_ERROR = 1e-3


def train(folder: Path, *arguments: object) -> list[dict[str, Any]]:
    """What TRL logs of each step of ``examples/trl``, through a server of its own."""
    variables = {"PYTHONPATH": str(ROOT), SERVER_KEY_VARIABLE: KEY}
    with ServingProgram(folder, "-m", "server:agent_loop", "-p", "0", **variables) as server:
        url = f"http://127.0.0.1:{server.wait_until_serving().port}"
        done = subprocess.run(
            [sys.executable, "-m", "examples.trl.train", "--server", url, "--output", folder, *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | {SERVER_KEY_VARIABLE: KEY},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Numbers are ")
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_trl_takes_steps_on_rollouts_of_the_server(tmp_path: Path, model_cache: Path) -> None:
    small = ("--steps", 2, "--problems-per-step", 1, "--samples", 4)
    steps = train(tmp_path, "--model-cache", model_cache, *small)
    assert [step["step"] for step in steps] == [1, 2]
    for step in steps:
        assert 0 <= step["reward"] <= 1
        assert 0 < step["completions/mean_length"] <= 58  # sampled tokens alone
        assert (step["grad_norm"] > 0) is (step["reward_std"] > 0)


def test_a_prompt_computed_once_gives_the_logprobs_of_transformers(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32)
    trainer = SharedPromptTrainer.__new__(SharedPromptTrainer)
    trainer.accelerator = SimpleNamespace(autocast=nullcontext, unwrap_model=lambda trained: trained)
    trainer.temperature = 0.7
    trainer._decoder, trainer._go_on = model.decoder, lambda: None
    torch.manual_seed(0)
    ids = torch.randint(100, 40_000, (5, 50))  # rows of three prompts, mixed as TRL mixes them; the second is shorter
    ids[2, :30], ids[4, :30] = ids[0, :30], ids[1, :30]
    mask = torch.ones_like(ids)
    mask[1::3, :9] = 0
    mask[1, 45:] = 0
    prompts: list[int] = []
    hidden_states = model.decoder.hidden_states

    def counted(weights: Weights, prefix: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        prompts.append(len(prefix))
        return hidden_states(weights, prefix, tokens)

    monkeypatch.setattr(model.decoder, "hidden_states", counted)
    with torch.no_grad():
        ours, entropy, _ = trainer._get_per_token_logps_and_entropies(reference, ids, mask, 20)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        logits = reference(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, 29:-1] / 0.7
    theirs = torch.log_softmax(logits, dim=-1).gather(2, ids[:, 30:, None])[..., 0]
    is_real = mask[:, 30:].bool()
    assert prompts == [30, 21, 30]
    assert torch.allclose(ours[is_real], theirs[is_real], atol=FP32_ERROR)
    assert entropy is not None
    assert (entropy[is_real] > 0).all()
