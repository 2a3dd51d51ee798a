"""Group-relative policy optimisation (GRPO, arXiv:2402.03300): from rewards to advantages, from trajectories to a step.

One step, over the sampled tokens t of all trajectories i of groups with spread, T of them in all:

    A_i  = (r_i - mean(r)) / (std(r) + epsilon)                       within i's group
    rho  = exp(log p_new(t) - log p_sampled(t))
    loss = -1/T sum min(rho A_i, clip(rho, 1 - c, 1 + c) A_i)
           + kl/T sum (exp(d) - d - 1)                                d = log p_start(t) - log p_new(t)

Prompt, user and tool tokens are read but carry no loss. The weights in use are bf16; an fp32 master copy takes the
optimizer's small steps, which bf16 would round away.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

import torch
from torch import Tensor

from training.model import Decoder, Weights
from training.trajectory import Segment


@dataclass(frozen=True, slots=True)
class Sample:
    """One segment to train on, with its rollout's advantage."""

    segment: Segment
    advantage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpoSettings:
    """The numbers of the loss and of AdamW."""

    learning_rate: float = 2e-5
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    clip_ratio: float = 0.2
    kl: float = 0.0
    micro_batch: int = 16
    temperature: float = 1.0
    warmup_steps: int = 0


@dataclass(frozen=True, slots=True)
class StepStats:
    """What one step was."""

    samples: int
    trained_tokens: int
    loss: float
    gradient_norm: float
    clipped_share: float
    """Of the trained tokens: those whose ratio was clipped."""
    mean_ratio: float
    kl: float
    """Mean of the estimate above; 0 without a start model."""
    entropy: float
    """Mean entropy of the trained positions, in nats."""
    largest_logprob_error: float
    """Largest difference between a recorded log-probability and this pass's, before the step."""


def advantages(rewards: Sequence[float], epsilon: float) -> list[float] | None:
    """Advantages within one group; ``None`` if there is no spread to learn from."""
    if len(rewards) < 2 or max(rewards) == min(rewards):
        return None
    mean, deviation = fmean(rewards), pstdev(rewards)
    return [(reward - mean) / (deviation + epsilon) for reward in rewards]


class Learner:
    """Holds the master copy and the optimizer, and writes each step's result into ``weights``.

    Args:
        weights: those in use; changed only by ``publish``.
        start_weights: what ``kl`` is measured against; needed if it is above 0.
    """

    def __init__(
        self, decoder: Decoder, weights: Weights, settings: GrpoSettings, start_weights: Weights | None = None
    ) -> None:
        self._decoder = decoder
        self._weights = weights
        self._start_weights = start_weights
        self._settings = settings
        self._working = {name: tensor.detach().clone().requires_grad_() for name, tensor in weights.items()}
        self._master = {name: tensor.detach().float().clone() for name, tensor in weights.items()}
        self._optimizer = torch.optim.AdamW(
            self._master.values(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            foreach=False,
            fused=True,
        )
        self.steps = 0
        """Optimizer steps."""
        self.steps_done = 0
        """Steps of the run, those without any spread included; kept with the rest for ``restore``."""

    def step(self, samples: Sequence[Sample], is_cancelled: Callable[[], bool] = lambda: False) -> StepStats | None:
        """One optimizer step; ``publish`` makes it the policy. ``None``, and no step, once ``is_cancelled``."""
        settings = self._settings
        trained_tokens = sum(sample.segment.sampled_count for sample in samples)
        totals = torch.zeros(6, dtype=torch.float64)
        largest_error = 0.0
        for master in self._master.values():
            master.grad = torch.zeros_like(master)
        # Like lengths together: less padding. Neighbours in the order also share the longest prefix.
        ordered = sorted(samples, key=lambda sample: len(sample.segment.ids))
        for at in range(0, len(ordered), settings.micro_batch):
            if is_cancelled():
                return None
            batch = ordered[at : at + settings.micro_batch]
            loss, sums, error = self._loss(batch, trained_tokens)
            loss.backward()
            totals += sums
            largest_error = max(largest_error, error)
            for name, working in self._working.items():
                if working.grad is not None and (gradient := self._master[name].grad) is not None:
                    gradient += working.grad.float()
                working.grad = None
        norm = float(torch.nn.utils.clip_grad_norm_(self._master.values(), settings.clip_norm))
        self.steps += 1
        rate = settings.learning_rate * min(1.0, self.steps / max(1, settings.warmup_steps))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        if math.isfinite(norm):
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, working in self._working.items():
                working.copy_(self._master[name])
        loss_sum, clipped, ratio, kl, entropy, _ = (totals / trained_tokens).tolist()
        return StepStats(len(samples), trained_tokens, loss_sum, norm, clipped, ratio, kl, entropy, largest_error)

    def publish(self) -> None:
        """Copy the result of the steps so far into the weights in use."""
        with torch.no_grad():
            for name, tensor in self._weights.items():
                tensor.copy_(self._working[name])

    def _loss(self, batch: Sequence[Sample], trained_tokens: int) -> tuple[Tensor, Tensor, float]:
        settings = self._settings
        segments = [sample.segment for sample in batch]
        new, entropy = sampled_logprobs(self._decoder, self._working, segments, settings.temperature)
        old = torch.tensor([p for s in segments for p, used in zip(s.logprobs, s.is_sampled, strict=True) if used])
        advantage = torch.tensor([sample.advantage for sample in batch for _ in range(sample.segment.sampled_count)])
        old, advantage = old.to(new.device), advantage.to(new.device)
        ratio = (new - old).exp()
        clipped = ratio.clamp(1 - settings.clip_ratio, 1 + settings.clip_ratio)
        gains = torch.minimum(ratio * advantage, clipped * advantage)
        kl = torch.zeros_like(new)
        if settings.kl and self._start_weights is not None:
            with torch.no_grad():
                start, _ = sampled_logprobs(self._decoder, self._start_weights, segments, settings.temperature)
            kl = (start - new).exp() - (start - new) - 1
        loss = (settings.kl * kl - gains).sum()
        with torch.no_grad():
            was_clipped = (clipped * advantage < ratio * advantage).double().sum()
            sums = [loss.double(), was_clipped, ratio.double().sum(), kl.double().sum(), entropy.double().sum()]
            error = float((new - old).abs().max()) if len(new) else 0.0
        return loss / trained_tokens, torch.stack([*sums, sums[0] * 0]).cpu(), error

    def state(self) -> dict[str, Any]:
        """All that a later ``restore`` needs to go on as if nothing had happened."""
        return {
            "master": self._master,
            "optimizer": self._optimizer.state_dict(),
            "steps": self.steps,
            "steps_done": self.steps_done,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``, weights in use included."""
        with torch.no_grad():
            for name, master in self._master.items():
                master.copy_(state["master"][name])
                self._working[name].copy_(master)
        self._optimizer.load_state_dict(state["optimizer"])
        self.steps, self.steps_done = state["steps"], state["steps_done"]
        self.publish()


def sampled_logprobs(
    decoder: Decoder, weights: Weights, segments: Sequence[Segment], temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all sampled tokens, segment after segment, and the entropy of their positions, in fp32.

    What the segments begin with in common is computed once.
    """
    device = next(iter(weights.values())).device
    shared = _shared_prompt_length(segments)
    prefix = torch.tensor(segments[0].ids[:shared], device=device)
    longest = max(len(segment.ids) for segment in segments) - shared
    rows = [segment.ids[shared:] + [0] * (longest - len(segment.ids) + shared) for segment in segments]
    prefix_hidden, hidden = decoder.hidden_states(weights, prefix, torch.tensor(rows, device=device))
    places, targets = [], []
    for row, segment in enumerate(segments):
        for position, used in enumerate(segment.is_sampled):
            if used:
                # The token at a position is predicted from the position before it.
                places.append((row, position - 1 - shared))
                targets.append(segment.ids[position])
    row_index, column = torch.tensor(places, device=device).T
    # A position of -1 is the last token of the prefix, which all rows share.
    chosen = torch.where((column < 0)[:, None], prefix_hidden[-1], hidden[row_index, column.clamp(min=0)])
    logprobs = torch.log_softmax(decoder.logits(weights, chosen) / temperature, dim=-1)
    with torch.no_grad():
        entropy = -(logprobs.exp() * logprobs).sum(dim=-1)
    return logprobs.gather(1, torch.tensor(targets, device=device)[:, None])[:, 0], entropy


def _shared_prompt_length(segments: Sequence[Segment]) -> int:
    """Tokens that all segments begin with and none of them sampled; each keeps one token of its own at least."""
    first = segments[0]
    shared = min(len(segment.ids) for segment in segments) - 1
    for segment in segments:
        shared = min(shared, segment.is_sampled.index(True))
        agreeing = 0
        for one, other in zip(first.ids[:shared], segment.ids, strict=False):
            if one != other:
                break
            agreeing += 1
        shared = min(shared, agreeing)
    return max(1, shared)
