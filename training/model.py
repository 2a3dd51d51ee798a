"""A decoder of the Llama family as plain functions over a dict of weights, for generation and for training.

The forward pass is written out here because the two uses need what a general library does not offer together: many
conversations of different lengths in one KV cache whose rows come and go, and a training pass that computes a prompt
shared by a whole batch once and lets gradients flow through it. Weights have the names and shapes that ``transformers``
gives them, so that a folder written by one is read by the other.

Shapes: B rows, T new tokens a row, P tokens of a shared prefix, H query heads, G key-value heads, D numbers a head.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

Weights = dict[str, Tensor]

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
FINAL_NORM = "model.norm.weight"


@dataclass(frozen=True, slots=True)
class Architecture:
    """The numbers of ``config.json`` that the forward pass needs."""

    layers: int
    hidden: int
    query_heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    norm_epsilon: float
    rope_theta: float

    @property
    def queries_per_kv(self) -> int:
        """Query heads that share one key-value head."""
        return self.query_heads // self.kv_heads


class KvCache:
    """Keys and values of ``rows`` conversations of at most ``length`` tokens each.

    Memory: ``2 * layers * rows * kv_heads * length * head_size`` numbers.
    """

    def __init__(
        self, architecture: Architecture, rows: int, length: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        # One place more than the longest conversation, into which the padding of a batch is written.
        shape = (architecture.layers, rows, architecture.kv_heads, length + 1, architecture.head_size)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.rows = rows
        self.length = length

    def copy_row(self, source: int, targets: list[int], length: int) -> None:
        """Copy the first ``length`` tokens of one row to others."""
        for cached in (self.keys, self.values):
            cached[:, targets, :, :length] = cached[:, source : source + 1, :, :length]

    def swap_rows(self, one: int, other: int) -> None:
        """Exchange two rows."""
        for cached in (self.keys, self.values):
            kept = cached[:, one].clone()
            cached[:, one] = cached[:, other]
            cached[:, other] = kept


class Decoder:
    """The forward pass of one architecture. ``weights`` are given with each call, so one decoder serves many."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        half = torch.arange(0, architecture.head_size, 2, dtype=torch.float32)
        self._inverse_frequencies = 1.0 / architecture.rope_theta ** (half / architecture.head_size)

    def extend(
        self, weights: Weights, cache: KvCache, tokens: Tensor, starts: Tensor, counts: Tensor, first: int = 0
    ) -> Tensor:
        """Append tokens to B rows of the cache from ``first`` on; hidden states of each row's last token, [B, hidden].

        Args:
            tokens: [B, T], each row padded on the right.
            starts: [B], tokens each row has already.
            counts: [B], at least 1: how many of its T tokens are real.

        """
        rows, new = tokens.shape
        steps = torch.arange(new, device=tokens.device)
        positions = starts[:, None] + steps
        places = torch.where(steps < counts[:, None], positions, cache.length)
        total = int((starts + counts).max())
        cos, sin = self._rotations(positions, weights[EMBEDDING].dtype)
        reachable = torch.arange(total, device=tokens.device) <= positions[:, :, None]
        mask = self._mask(reachable, weights[EMBEDDING].dtype)
        row_index = torch.arange(rows, device=tokens.device)[:, None]

        x = F.embedding(tokens, weights[EMBEDDING])
        for layer in range(self.architecture.layers):
            q, k, v = self._projected(weights, layer, x, cos, sin)
            keys, values = cache.keys[layer, first : first + rows], cache.values[layer, first : first + rows]
            keys[row_index, :, places] = k.transpose(1, 2)
            values[row_index, :, places] = v.transpose(1, 2)
            attended = self._attend(q, keys[:, :, :total], values[:, :, :total], mask)
            x = self._layer_output(weights, layer, x, attended)
        return self._normed(weights, FINAL_NORM, x[row_index[:, 0], counts - 1])

    def hidden_states(self, weights: Weights, prefix: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states of a shared prefix [P, hidden] and of the rows that follow it [B, T, hidden], for training.

        Args:
            prefix: [P], at least 1 token; computed once.
            tokens: [B, T], padded on the right.
        """
        rows, new = tokens.shape
        shared = len(prefix)
        dtype = weights[EMBEDDING].dtype
        positions = torch.arange(shared + new, device=tokens.device)
        cos, sin = self._rotations(positions, dtype)
        causal = (positions <= positions[:, None])[None]
        prefix_mask = self._mask(causal[:, :shared, :shared], dtype)
        mask = self._mask(causal[:, shared:], dtype)

        p = F.embedding(prefix, weights[EMBEDDING])[None]
        x = F.embedding(tokens, weights[EMBEDDING])
        for layer in range(self.architecture.layers):
            q, k, v = self._projected(weights, layer, p, cos[:shared], sin[:shared])
            p_keys, p_values = k, v
            p = self._layer_output(weights, layer, p, self._attend(q, k, v, prefix_mask))
            q, k, v = self._projected(weights, layer, x, cos[shared:], sin[shared:])
            keys = torch.cat([p_keys.expand(rows, -1, -1, -1), k], dim=2)
            values = torch.cat([p_values.expand(rows, -1, -1, -1), v], dim=2)
            x = self._layer_output(weights, layer, x, self._attend(q, keys, values, mask))
        return self._normed(weights, FINAL_NORM, p)[0], self._normed(weights, FINAL_NORM, x)

    def logits(self, weights: Weights, hidden: Tensor) -> Tensor:
        """Next-token logits in fp32, [..., vocabulary]."""
        return F.linear(hidden, weights.get(HEAD, weights[EMBEDDING])).float()

    def _projected(
        self, weights: Weights, layer: int, x: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries [B, H, T, D] and keys, and values, [B, G, T, D]."""
        name = f"model.layers.{layer}"
        normed = self._normed(weights, f"{name}.input_layernorm.weight", x)
        q, k, v = (
            F.linear(normed, weights[f"{name}.self_attn.{part}_proj.weight"])
            .unflatten(-1, (-1, self.architecture.head_size))
            .transpose(-3, -2)
            for part in "qkv"
        )
        return _rotated(q, cos, sin), _rotated(k, cos, sin), v

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """[B, T, H * D]. Query heads that share keys are stacked along T, so that keys need no copy for each."""
        batch, heads, new, size = q.shape
        group = self.architecture.queries_per_kv
        stacked = q.reshape(batch, heads // group, group * new, size)
        attended = F.scaled_dot_product_attention(stacked, keys, values, attn_mask=mask)
        return attended.reshape(batch, heads, new, size).transpose(1, 2).flatten(2)

    def _mask(self, reachable: Tensor, dtype: torch.dtype) -> Tensor:
        """From [B, T, S] truth values: what is added to attention scores, [B, 1, queries_per_kv * T, S]."""
        barrier = torch.zeros(reachable.shape, dtype=dtype, device=reachable.device)
        barrier.masked_fill_(~reachable, float("-inf"))
        return barrier.repeat(1, self.architecture.queries_per_kv, 1)[:, None]

    def _layer_output(self, weights: Weights, layer: int, x: Tensor, attended: Tensor) -> Tensor:
        name = f"model.layers.{layer}"
        x = x + F.linear(attended, weights[f"{name}.self_attn.o_proj.weight"])
        normed = self._normed(weights, f"{name}.post_attention_layernorm.weight", x)
        gate = F.silu(F.linear(normed, weights[f"{name}.mlp.gate_proj.weight"]))
        return x + F.linear(
            gate * F.linear(normed, weights[f"{name}.mlp.up_proj.weight"]), weights[f"{name}.mlp.down_proj.weight"]
        )

    def _normed(self, weights: Weights, name: str, x: Tensor) -> Tensor:
        return F.rms_norm(x, (self.architecture.hidden,), weights[name], self.architecture.norm_epsilon)

    def _rotations(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines [..., 1 head, T, D] of each position."""
        angles = positions[..., None].float() * self._inverse_frequencies.to(positions.device)
        angles = torch.cat([angles, angles], dim=-1)
        if positions.dim() > 1:
            angles = angles[:, None]
        return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
