"""One next token for each row of a batch, by the sampling fields of each row's own chat call."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from osmosis_ai.rollout.trainer import CallRefusedError

DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """The fields of a chat call that shape what is sampled; others have no effect here."""

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0 means all."""
    min_p: float = 0.0
    max_tokens: int = DEFAULT_MAX_TOKENS
    stop: tuple[str, ...] = ()
    """Texts that end the turn and are cut off its message; their tokens were sampled and are trained on."""
    seed: int | None = None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "SamplingParams":
        """Read a chat call.

        Raises:
            CallRefusedError: for a value that cannot be honoured.
        """
        if _number(fields, "n", 1) != 1:
            raise CallRefusedError("n: one choice is generated a call.")
        stop = fields.get("stop") or ()
        stops = (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, list | tuple) else (None,)
        if not all(isinstance(text, str) and text for text in stops):
            raise CallRefusedError("stop: must be a text or a list of texts.")
        limit = fields.get("max_completion_tokens")
        params = cls(
            temperature=_number(fields, "temperature", 1.0),
            top_p=_number(fields, "top_p", 1.0),
            top_k=max(0, int(_number(fields, "top_k", 0))),
            min_p=_number(fields, "min_p", 0.0),
            max_tokens=int(_number(fields, "max_tokens", DEFAULT_MAX_TOKENS) if limit is None else limit),
            stop=stops,
            seed=None if fields.get("seed") is None else int(_number(fields, "seed", 0)),
        )
        if params.temperature < 0 or not 0 < params.top_p <= 1 or not 0 <= params.min_p <= 1 or params.max_tokens < 1:
            raise CallRefusedError("temperature, top_p, min_p or max_tokens is out of bounds.")
        return params

    def limited_to(self, max_tokens: int) -> "SamplingParams":
        """The same with at most ``max_tokens``."""
        return replace(self, max_tokens=min(self.max_tokens, max_tokens))


def _number(fields: Mapping[str, Any], name: str, default: float) -> float:
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CallRefusedError(f"{name}: must be a number.")
    return value


class RowSampler:
    """The sampling of one turn: its parameters and its own stream of random numbers."""

    def __init__(self, params: SamplingParams, stream: str) -> None:
        self.params = params
        # Turns of one rollout share a seed but must not share their random numbers.
        seed = None if params.seed is None else f"{params.seed}/{stream}"
        self._random = random.Random(seed)  # noqa: S311 - samples, not secrets

    def uniform(self) -> float:
        """The next number in [0, 1)."""
        return self._random.random()


def sample(logits: Tensor, rows: list[RowSampler]) -> tuple[list[int], list[float]]:
    """Sample from logits [B, vocabulary] in fp32; the tokens and their log-probabilities.

    A log-probability is under the model at the row's temperature (1 where it is 0), before top-p, top-k and min-p cut
    the tail off: it is what a fresh forward pass gives.
    """
    temperatures = torch.tensor([row.params.temperature or 1.0 for row in rows], device=logits.device)
    logprobs = torch.log_softmax(logits / temperatures[:, None], dim=-1)
    candidates = logprobs.exp()
    for number, row in enumerate(rows):
        params = row.params
        if params.temperature and (params.top_p < 1 or params.top_k or params.min_p):
            candidates[number] = _cut(candidates[number], params)
    totals = candidates.cumsum(dim=-1)
    points = torch.tensor([row.uniform() for row in rows], device=logits.device) * totals[:, -1]
    tokens = torch.searchsorted(totals, points[:, None], right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
    is_greedy = torch.tensor([row.params.temperature == 0 for row in rows], device=logits.device)
    tokens = torch.where(is_greedy, logits.argmax(dim=-1), tokens)
    chosen = logprobs.gather(1, tokens[:, None])[:, 0]
    return tokens.tolist(), chosen.tolist()


def _cut(probabilities: Tensor, params: SamplingParams) -> Tensor:
    ordered, order = probabilities.sort(descending=True)
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if params.top_k:
        keep[params.top_k :] = False
    if params.top_p < 1:
        keep &= ordered.cumsum(dim=0) - ordered < params.top_p
    keep &= ordered >= params.min_p * ordered[0]
    keep[0] = True
    return torch.zeros_like(probabilities).scatter(0, order, ordered * keep)
