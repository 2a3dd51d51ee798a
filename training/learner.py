"""TRL's ``GRPOTrainer`` made fit for two cores: what rollouts share is computed once, what teaches nothing not at all.

Loss, optimizer, schedule, logging and checkpoints are TRL's. Over the sampled tokens t of the rollouts i that have an
advantage, T of them in all, its ``loss_type="bnpo"`` is

    A_i  = (r_i - mean(r)) / (std(r) + 1e-4)                          within i's group, std with n - 1
    rho  = exp(log p_new(t) - log p_sampled(t))
    loss = -1/T sum min(rho A_i, clip(rho, 1 - c, 1 + c) A_i)
           + kl/T sum (exp(d) - d - 1)                                d = log p_start(t) - log p_new(t)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from training.config import TrainingConfig
from training.model import Decoder, Weights
from training.weights import writing

LEAST_ADVANTAGE = 1e-3
"""Below it is what rounding makes of a group whose rewards are all the same."""
SAMPLED = "sampling_per_token_logps"
FOREVER = 1_000_000_000
"""Steps of a run that is bounded by time."""


class SharedPromptTrainer(GRPOTrainer):  # type: ignore[misc]
    """``GRPOTrainer``, but a prompt is computed once for all rollouts that have it, gradients included.

    The prompt is three quarters of a rollout's tokens here. TRL mixes the rollouts of a step, so they must be one batch
    for it. A step in which no group has spread leaves the weights alone.

    Args:
        go_on: called between the parts of a step; what it raises ends the training with the weights of the step before.
    """

    def __init__(self, *args: Any, decoder: Decoder, go_on: Callable[[], None] = lambda: None, **named: Any) -> None:
        super().__init__(*args, **named)
        self._decoder = decoder
        self._go_on = go_on

    def training_step(self, *args: Any, **named: Any) -> Tensor:
        """TRL's. The pass back is not cut off: what is raised within it ends the process in an abort."""
        loss: Tensor = super().training_step(*args, **named)
        self._go_on()
        return loss

    def _save_checkpoint(self, *args: Any, **named: Any) -> None:
        with writing("a checkpoint", Path(self.args.output_dir), "--output"):
            super()._save_checkpoint(*args, **named)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        """TRL's loss of the rollouts that have an advantage, against the log-probabilities they were sampled with."""
        learning = inputs["advantages"].abs() > LEAST_ADVANTAGE
        if not learning.any():
            # No gradient at all, so that not even AdamW's momentum moves anything.
            return torch.zeros((), device=learning.device, requires_grad=True)
        kept = {name: v[learning] if isinstance(v, Tensor) and v.dim() else v for name, v in inputs.items()}
        kept["old_per_token_logps"] = kept[SAMPLED]
        loss: Tensor = super().compute_loss(model, kept, return_outputs, num_items_in_batch)
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        *args: Any,
        **named: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        del args, named
        prompts, completions = input_ids[:, :-logits_to_keep], input_ids[:, -logits_to_keep:]
        is_prompt = attention_mask[:, :-logits_to_keep].bool()
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for row, ids in enumerate(prompts):
            rows_of.setdefault(tuple(ids[is_prompt[row]].tolist()), []).append(row)
        weights: Weights = dict(self.accelerator.unwrap_model(model).named_parameters())
        parts = []
        with self.accelerator.autocast():  # around all of them, as it keeps the weights that it has rounded
            for rows in rows_of.values():
                self._go_on()
                prompt = prompts[rows[0]][is_prompt[rows[0]]]
                parts.append(completion_logprobs(self._decoder, weights, prompt, completions[rows], self.temperature))
        back = torch.tensor([row for rows in rows_of.values() for row in rows], device=input_ids.device).argsort()
        logprobs, entropy = (torch.cat(each)[back] for each in zip(*parts, strict=True))
        return logprobs, entropy, None


def completion_logprobs(
    decoder: Decoder, weights: Weights, prompt: Tensor, completions: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all tokens of completions [B, T] of one prompt [P], and the entropy at each, in fp32."""
    prompt_hidden, hidden = decoder.hidden_states(weights, prompt, completions)
    last = prompt_hidden[-1:].expand(len(hidden), 1, -1)
    logits = decoder.logits(weights, torch.cat([last, hidden[:, :-1]], dim=1)) / temperature
    logprobs = torch.log_softmax(logits, dim=-1)
    with torch.no_grad():
        entropy = -(logprobs.exp() * logprobs).sum(dim=-1)
    return logprobs.gather(2, completions[..., None])[..., 0], entropy


def grpo_config(config: TrainingConfig, checkpoints: Path, dtype: torch.dtype) -> GRPOConfig:
    """The settings of a run in TRL's words; ``dtype`` is that of the passes, the weights that are trained are fp32."""
    return GRPOConfig(
        output_dir=str(checkpoints),
        use_cpu=config.device == "cpu",
        bf16=dtype is torch.bfloat16,
        max_steps=FOREVER if config.steps is None else config.steps,
        seed=config.seed,
        num_generations=config.samples,
        per_device_train_batch_size=config.problems_per_step * config.samples,
        gradient_checkpointing=False,
        temperature=config.temperature,
        loss_type="bnpo",
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=config.warmup_steps,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip_norm,
        epsilon=config.clip_ratio,
        beta=config.kl,
        use_bias_correction_kl=False,
        logging_steps=1,
        save_steps=config.checkpoint_steps or FOREVER,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
    )
