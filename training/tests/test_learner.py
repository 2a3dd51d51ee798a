"""What TRL computes is the maths of the page, and a step that is left out leaves the weights alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, TrainerCallback

from training.config import TrainingConfig
from training.learner import SharedPromptTrainer, grpo_config
from training.weights import Model, load_model

PROMPTS = [[300, 301, 302], [310, 311]]
COMPLETIONS = [[400, 401, 402, 403], [410, 411], [420], [430, 431, 432], [440, 441, 442]]
MASK = [1, 0, 1, 1]
"""Of each completion: the second token was said by a tool."""
SPREAD = [1.0, 0.0, None, 1.0, 0.0]
NO_SPREAD = [1.0] * 5
SAMPLED_LOGPROB = -10.8
TEMPERATURE = 0.7
CLIP = 0.001
"""So narrow that some ratios are clipped and some are not."""
KL = 0.1
FP32_ERROR = 1e-5


class StoppedError(Exception):
    """What a test ends a step with."""


@pytest.fixture
def small(model: Model, tmp_path: Path) -> Model:
    """Two small layers under the start model's tokenizer."""
    torch.manual_seed(0)
    folder = tmp_path / "small"
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(model.tokenizer), **sizes, **heads)).save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return load_model(str(folder), tmp_path, torch.device("cpu"), torch.float32)


@pytest.fixture
def passes(small: Model, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Tokens of the prompt, and rows, of each pass from here on."""
    made: list[tuple[int, int]] = []
    hidden_states = small.decoder.hidden_states

    def counted(weights: Any, prompt: torch.Tensor, rows: torch.Tensor) -> Any:
        made.append((len(prompt), len(rows)))
        return hidden_states(weights, prompt, rows)

    monkeypatch.setattr(small.decoder, "hidden_states", counted)
    return made


def learner(
    small: Model, rewards: Sequence[float | None], go_on: Callable[[], None] = lambda: None, **settings: Any
) -> SharedPromptTrainer:
    """A trainer whose steps take the completions above for both prompts, with these rewards."""
    config = TrainingConfig(problems_per_step=2, samples=5, temperature=TEMPERATURE, **settings)
    completions = COMPLETIONS * 2
    trainer = SharedPromptTrainer(
        AutoModelForCausalLM.from_pretrained(small.folder, dtype=torch.float32),
        reward_funcs=lambda reward, **_: reward,
        args=grpo_config(config, small.folder.parent / "checkpoints", torch.float32),
        train_dataset=Dataset.from_dict({"prompt": ["0", "1"]}),
        processing_class=small.tokenizer,
        rollout_func=lambda prompts, _: {
            "prompt_ids": [PROMPTS[int(prompt)] for prompt in prompts],
            "completion_ids": completions,
            "logprobs": [[SAMPLED_LOGPROB] * len(ids) for ids in completions],
            "env_mask": [MASK[: len(ids)] for ids in completions],
            "reward": list(rewards),
        },
        decoder=small.decoder,
        go_on=go_on,
    )
    with torch.no_grad():  # otherwise the ratio to the start model is 1, which hides how it is used
        for parameter in trainer.model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return trainer


def the_page(trained: torch.nn.Module, start: torch.nn.Module) -> torch.Tensor:
    """Loss of one group with ``SPREAD`` for each prompt, from transformers' own pass."""
    rewarded = [(ids, reward) for ids, reward in zip(COMPLETIONS, SPREAD, strict=True) if reward is not None]
    rewards = torch.tensor([reward for _, reward in rewarded])
    advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    total, tokens = torch.zeros(()), 0
    for prompt in PROMPTS:
        for (ids, _), advantage in zip(rewarded, advantages, strict=True):
            row = torch.tensor([[*prompt, *ids]])
            at = [len(prompt) + place for place in range(len(ids)) if MASK[place]]
            new, old = (
                torch.log_softmax(one(row).logits[0] / TEMPERATURE, -1)[[place - 1 for place in at], row[0, at]]
                for one in (trained, start)
            )
            ratio = (new - SAMPLED_LOGPROB).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
            apart = old.detach() - new
            total = total + (KL * (apart.exp() - apart - 1) - gain).sum()
            tokens += len(at)
    return total / tokens


def test_a_step_is_the_maths_of_the_page_with_each_prompt_computed_once(
    small: Model, passes: list[tuple[int, int]]
) -> None:
    expected: list[torch.Tensor] = []
    found: list[torch.Tensor] = []

    class Gradients(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
            page = the_page(model, AutoModelForCausalLM.from_pretrained(small.folder))
            expected.extend(torch.autograd.grad(page, list(model.parameters())))
            passes.clear()

        def on_pre_optimizer_step(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
            found.extend(parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None)

    trainer = learner(small, SPREAD * 2, steps=1, clip_ratio=CLIP, clip_norm=1e9, kl=KL, checkpoint_steps=0)
    trainer.add_callback(Gradients)
    trainer.train()
    assert max(float(gradient.abs().max()) for gradient in expected) > 100 * FP32_ERROR
    assert all(torch.allclose(ours, page, atol=FP32_ERROR) for ours, page in zip(found, expected, strict=True))
    assert sorted(passes[-2:]) == [(2, 4), (3, 4)]
    logged = trainer.state.log_history[0]
    assert 0 < logged["clip_ratio/region_mean"] < 1
    assert logged["kl"] > 0


def test_groups_without_spread_teach_nothing_and_move_nothing(small: Model, passes: list[tuple[int, int]]) -> None:
    rewards = [*SPREAD, *NO_SPREAD]
    weights: list[torch.Tensor] = []

    class AfterSteps(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, model: Any, **__: Any) -> None:
            weights.append(model.model.embed_tokens.weight.detach().clone())
            rewards[:] = NO_SPREAD * 2

    trainer = learner(small, rewards, steps=2)
    trainer.add_callback(AfterSteps)
    trainer.train()
    assert [rows for _, rows in passes] == [4]
    first, second = trainer.state.log_history[:2]
    assert "entropy" in first
    assert "entropy" not in second
    # AdamW would go on from its moments if it had a gradient, be it of zeros.
    assert torch.equal(*weights)


@pytest.mark.parametrize("moment", range(3))  # two passes forward, one back
def test_a_step_that_is_cut_off_anywhere_leaves_the_weights(small: Model, moment: int) -> None:
    calls = iter(range(3))

    def go_on() -> None:
        if next(calls) == moment:
            raise StoppedError

    trainer = learner(small, SPREAD * 2, go_on, steps=1)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    with pytest.raises(StoppedError):
        trainer.train()
    assert all(map(torch.equal, before, trainer.model.parameters()))
    assert trainer.state.global_step == 0
