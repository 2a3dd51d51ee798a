"""What TRL computes is the maths of the page, and a step that is left out leaves the weights alone."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from training.config import TrainingConfig
from training.learner import SharedPromptTrainer, StepCallback, grpo_trainer
from training.weights import Model, load_model

PROMPTS = [[300, 301, 302], [310, 311]]
COMPLETIONS = [[400, 401, 402, 403], [410, 411], [420], [430, 431, 432], [440, 441, 442]]
MASK = [1, 0, 1, 1]
"""Of each completion: the second token was said by a tool."""
SPREAD = [1.0, 0.0, None, 1.0, 0.0]
NO_SPREAD = [1.0] * 5
FP32_ERROR = 1e-5
KL = 0.1


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


def learner(
    small: Model,
    rewards: Sequence[Sequence[float | None]],
    *,
    steps: int = 1,
    go_on: Callable[[], None] = lambda: None,
    before_step: Callable[[], None] = lambda: None,
    stepped: Callable[[int, Mapping[str, Any]], bool] = lambda step, logs: True,
    **settings: Any,
) -> SharedPromptTrainer:
    """A trainer whose steps get these rewards, one list a problem, for the completions above."""
    given: dict[str, Any] = {"problems_per_step": 2, "samples": 5, "steps": steps, "clip_norm": 1e9}
    config = TrainingConfig(**(given | settings))
    every = rewards[0] if len(rewards) == 1 else [reward for group in rewards for reward in group]

    def rollouts(prompts: Sequence[str], trainer: Any) -> dict[str, list[Any]]:
        del trainer
        completions = [COMPLETIONS[number % 5] for number in range(len(prompts))]
        return {
            "prompt_ids": [PROMPTS[int(prompt)] for prompt in prompts],
            "completion_ids": completions,
            "logprobs": [[-10.8] * len(ids) for ids in completions],
            "env_mask": [MASK[: len(ids)] for ids in completions],
            "reward": every,
        }

    trained = AutoModelForCausalLM.from_pretrained(small.folder, dtype=torch.float32)
    trainer = grpo_trainer(
        config,
        small.folder.parent / "checkpoints",
        trained,
        dtype=torch.float32,
        callback=StepCallback(before_step, stepped),
        decoder=small.decoder,
        go_on=go_on,
        reward_funcs=lambda reward, **_: reward,
        train_dataset=Dataset.from_list([{"prompt": "0"}, {"prompt": "1"}]),
        processing_class=small.tokenizer,
        rollout_func=rollouts,
    )
    with torch.no_grad():  # otherwise the ratio to the start model is 1, which hides how it is used
        for parameter in trained.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return trainer


def the_page(trained: torch.nn.Module, start: torch.nn.Module, clip: float) -> torch.Tensor:
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
                torch.log_softmax(one(row).logits[0], -1)[[place - 1 for place in at], row[0, at]]
                for one in (trained, start)
            )
            ratio = (new + 10.8).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
            apart = old.detach() - new
            total = total + (KL * (apart.exp() - apart - 1) - gain).sum()
            tokens += len(at)
    return total / tokens


def test_a_step_is_the_maths_of_the_page(small: Model) -> None:
    seen: dict[str, torch.Tensor] = {}

    def before_step() -> None:
        page = the_page(trainer.model, AutoModelForCausalLM.from_pretrained(small.folder), clip=0.001)
        gradients = torch.autograd.grad(page, list(trainer.model.parameters()))
        seen["largest"] = torch.stack([gradient.abs().max() for gradient in gradients]).max()
        differences = [
            (ours.grad - theirs).abs().max() if ours.grad is not None else theirs.abs().max()
            for ours, theirs in zip(trainer.model.parameters(), gradients, strict=True)
        ]
        seen["error"] = torch.stack(differences).max()

    logged: list[Mapping[str, Any]] = []

    def stepped(step: int, logs: Mapping[str, Any]) -> bool:
        logged.append(logs)
        return step > 0

    # A narrow clip, so that some ratios are clipped and some are not.
    trainer = learner(
        small, [SPREAD, SPREAD], before_step=before_step, stepped=stepped, clip_ratio=0.001, kl=KL, checkpoint_steps=0
    )
    trainer.train()
    assert seen["largest"] > 100 * FP32_ERROR
    assert seen["error"] < FP32_ERROR
    [step] = logged
    assert 0 < step["clip_ratio/region_mean"] < 1
    assert step["kl"] > 0


def test_groups_without_spread_teach_nothing_and_move_nothing(small: Model) -> None:
    rows: list[int] = []
    kept: list[tuple[Mapping[str, Any], torch.Tensor]] = []
    hidden_states = small.decoder.hidden_states

    def counted(*given: Any) -> Any:
        rows.append(len(given[2]))
        return hidden_states(*given)

    small.decoder.hidden_states = counted  # type: ignore[method-assign]

    def stepped(step: int, logs: Mapping[str, Any]) -> bool:
        kept.append((logs, trainer.model.model.embed_tokens.weight.detach().clone()))
        rewards[:] = NO_SPREAD * 2
        return step < 3

    rewards = [*SPREAD, *NO_SPREAD]
    trainer = learner(small, [rewards], steps=5, stepped=stepped)
    trainer.train()
    assert rows == [4]
    (first, after_first), (second, after_second), _ = kept
    assert "entropy" in first
    assert "entropy" not in second
    # AdamW would go on from its moments if it had a gradient, be it of zeros.
    assert torch.equal(after_first, after_second)


@pytest.mark.parametrize("moment", range(5))  # two passes forward, two backward, the optimizer
def test_a_step_that_is_cut_off_anywhere_leaves_the_weights(small: Model, moment: int) -> None:
    calls = iter(range(5))

    def go_on() -> None:
        if next(calls) == moment:
            raise StoppedError

    trainer = learner(small, [SPREAD, SPREAD], go_on=go_on, before_step=go_on)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    with pytest.raises(StoppedError):
        trainer.train()
    assert all(map(torch.equal, before, trainer.model.parameters()))
    assert trainer.state.global_step == 0
