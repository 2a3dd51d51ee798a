"""Batched generation: turns of many rollouts decoded together, in a thread of its own.

A turn that arrives waits a few milliseconds for others, joins those that are being decoded, and leaves when it is
done. What a rollout said before stays in its row of the KV cache, so its next turn computes only what is new; a prompt
that begins like others is computed once and copied. Rows of the cache: ``[0, active)`` are being decoded, those behind
belong to rollouts whose agent is busy, the rest are free.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch

from training.chat import ChatFormat
from training.model import Decoder, KvCache, Weights
from training.sampling import RowSampler, SamplingParams, sample

MIN_SHARED_TOKENS = 16
JOIN_WAIT_SECONDS = 0.3
"""How long a few newcomers wait for more before they interrupt decoding."""


class StopCause(Enum):
    """Why a turn ended."""

    END = "end"
    """The model sampled the end token."""
    STOP = "stop"
    """It wrote one of the stop texts."""
    LENGTH = "length"
    """It reached its limit of tokens."""


@dataclass(frozen=True, slots=True)
class Generated:
    """One sampled turn."""

    tokens: list[int]
    logprobs: list[float]
    cause: StopCause


class StaleTurnError(Exception):
    """The weights changed while the turn was being decoded."""


@dataclass(slots=True, eq=False)
class _Turn:
    rollout_id: str
    prompt: list[int]
    sampler: RowSampler
    result: "Future[Generated]"
    arrived_seconds: float
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@dataclass(slots=True)
class EngineStats:
    """Running totals."""

    sampled_tokens: int = 0
    decoding_seconds: float = 0.0
    """Time in which at least one turn was being worked on."""
    decode_steps: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    """Prompt tokens whose keys and values were there already."""


class Engine:
    """Generates from ``weights``. ``generate`` belongs to an event loop; the rest may be called from any thread.

    Args:
        rows: rollouts whose context is kept; also the largest batch.
        max_length: tokens of the longest conversation.
        wait_seconds: how long the first turn waits for company.
    """

    def __init__(
        self,
        decoder: Decoder,
        weights: Weights,
        chat: ChatFormat,
        *,
        rows: int = 64,
        max_length: int = 512,
        wait_seconds: float = 0.01,
    ) -> None:
        self._decoder = decoder
        self._weights = weights
        self._chat = chat
        some = next(iter(weights.values()))
        self._device = some.device
        self._cache = KvCache(decoder.architecture, rows, max_length, some.dtype, some.device)
        self._prefix_cache = KvCache(decoder.architecture, 1, max_length, some.dtype, some.device)
        self._prefix: list[int] = []
        self._owners: list[str | None] = [None] * rows
        self._cached: list[list[int]] = [[] for _ in range(rows)]
        self._last_used = [0.0] * rows
        self._active: list[_Turn] = []
        self._pending: list[_Turn] = []
        self._wait_seconds = wait_seconds
        self._changed = threading.Condition()
        self._weights_lock = threading.Lock()
        self._is_closed = False
        self.max_length = max_length
        self.stats = EngineStats()
        self._thread = threading.Thread(target=self._work, name="generation", daemon=True)
        self._thread.start()

    async def generate(self, rollout_id: str, prompt: list[int], params: SamplingParams) -> Generated:
        """Sample one turn after ``prompt``.

        Raises:
            StaleTurnError: if ``update`` was called meanwhile.
            RuntimeError: if the engine is closed.
        """
        room = self.max_length - len(prompt)
        if room < 1:
            return Generated([], [], StopCause.LENGTH)
        turn = _Turn(rollout_id, prompt, RowSampler(params, f"{len(prompt)}"), Future(), time.monotonic())
        with self._changed:
            if self._is_closed:
                raise RuntimeError("The engine is closed.")
            self._pending.append(turn)
            self._changed.notify()
        return await asyncio.wrap_future(turn.result)

    def update(self, change: Callable[[], None]) -> None:
        """Run ``change``, which may write to the weights, between two forward passes.

        All that was computed with the old weights is forgotten; turns that are being decoded fail.
        """
        with self._weights_lock:
            change()
            with self._changed:
                stale, self._active = self._active, []
                self._prefix = []
                self._owners = [None] * len(self._owners)
                self._cached = [[] for _ in self._owners]
        for turn in stale:
            if not turn.result.done():  # its rollout may have been cancelled
                turn.result.set_exception(StaleTurnError(turn.rollout_id))

    def close(self) -> None:
        """End the thread; turns under way fail."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()
        for turn in [*self._active, *self._pending]:
            turn.result.cancel()

    def _work(self) -> None:
        with torch.inference_mode():
            while self._wait_for_turns():
                started = time.monotonic()
                with self._weights_lock:
                    try:
                        if newcomers := self._newcomers():
                            self._admit(newcomers)
                        elif self._active:
                            self._decode()
                    except Exception as error:  # noqa: BLE001 - one bad batch must not leave callers waiting for ever
                        self._fail_all(error)
                self.stats.decoding_seconds += time.monotonic() - started

    def _wait_for_turns(self) -> bool:
        with self._changed:
            while not self._pending and not self._active and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return False
            if self._active:
                return True
            # Others are likely on their way; wait until none has come for a while.
            while self._changed.wait(self._wait_seconds) and not self._is_closed:
                pass
            return not self._is_closed

    def _newcomers(self) -> list[_Turn]:
        with self._changed:
            self._pending = [turn for turn in self._pending if not turn.result.cancelled()]
            if not self._pending:
                return []
            waited_seconds = time.monotonic() - self._pending[0].arrived_seconds
            # Each admission interrupts decoding, so single turns wait for company.
            if self._active and len(self._pending) * 4 < len(self._active) and waited_seconds < JOIN_WAIT_SECONDS:
                return []
            room = self._cache.rows - len(self._active)
            # A row holds one turn at a time, so a second call of the same rollout waits for the first.
            busy = {turn.rollout_id for turn in self._active}
            newcomers: list[_Turn] = []
            for turn in self._pending:
                if len(newcomers) < room and turn.rollout_id not in busy:
                    busy.add(turn.rollout_id)
                    newcomers.append(turn)
            self._pending = [turn for turn in self._pending if turn not in newcomers]
            return newcomers

    def _admit(self, newcomers: list[_Turn]) -> None:
        self._compute_shared_prefix(newcomers)
        first = len(self._active)
        newcomers.sort(key=lambda turn: turn.prompt)
        for row, turn in enumerate(newcomers, first):
            self._give_row(turn, row)
        # Turns with equal prompts are computed once, in the first of their rows.
        leaders = [
            row
            for row, turn in enumerate(newcomers, first)
            if row == first or turn.prompt != newcomers[row - first - 1].prompt
        ]
        for at, row in enumerate(leaders):
            self._swap(first + at, row)
            newcomers[at], newcomers[row - first] = newcomers[row - first], newcomers[at]
        new_tokens = [
            turn.prompt[len(self._cached[row]) :] for row, turn in enumerate(newcomers[: len(leaders)], first)
        ]
        starts = [len(self._cached[row]) for row in range(first, first + len(leaders))]
        hidden = self._extend(self._cache, first, new_tokens, starts)
        row_of = {tuple(turn.prompt): at for at, turn in enumerate(newcomers[: len(leaders)])}
        sources = [row_of[tuple(turn.prompt)] for turn in newcomers]
        for at, (turn, source) in enumerate(zip(newcomers, sources, strict=True)):
            if at != source:
                self._cache.copy_row(first + source, [first + at], len(turn.prompt))
                self.stats.reused_tokens += len(turn.prompt) - len(self._cached[first + at])
            self._cached[first + at] = list(turn.prompt)
            self.stats.prompt_tokens += len(turn.prompt)
        self.stats.reused_tokens += sum(starts)
        self._active += newcomers
        self._sample(hidden[sources], first)

    def _compute_shared_prefix(self, newcomers: list[_Turn]) -> None:
        """Have what the newcomers without a row begin with in the prefix cache."""
        fresh = [turn.prompt for turn in newcomers if turn.rollout_id not in self._owners]
        if not fresh:
            return
        shared = min(_shared_length(fresh[0], prompt) for prompt in fresh)
        shared = min(shared, min(map(len, fresh)) - 1)
        if _shared_length(fresh[0][:shared], self._prefix) >= max(shared, MIN_SHARED_TOKENS) * 3 // 4:
            return
        if len(fresh) < 2 or shared < MIN_SHARED_TOKENS:
            return
        self._extend(self._prefix_cache, 0, [fresh[0][:shared]], [0])
        self._prefix = fresh[0][:shared]

    def _give_row(self, turn: _Turn, row: int) -> None:
        """Put the turn's rollout into ``row``, with as much of its prompt as is cached."""
        if turn.rollout_id in self._owners:
            self._swap(row, self._owners.index(turn.rollout_id))
        else:
            self._swap(row, self._free_row(row))
            self._owners[row] = turn.rollout_id
            shared = _shared_length(self._prefix, turn.prompt[:-1])
            if shared:
                self._cache.keys[:, row, :, :shared] = self._prefix_cache.keys[:, 0, :, :shared]
                self._cache.values[:, row, :, :shared] = self._prefix_cache.values[:, 0, :, :shared]
            self._cached[row] = turn.prompt[:shared]
        kept = _shared_length(self._cached[row], turn.prompt[:-1])
        self._cached[row] = self._cached[row][:kept]
        self._last_used[row] = time.monotonic()

    def _free_row(self, first: int) -> int:
        """A row at or behind ``first`` that nobody owns, or the one that was used longest ago."""
        candidates = range(first, self._cache.rows)
        free = next((row for row in candidates if self._owners[row] is None), None)
        return min(candidates, key=lambda row: self._last_used[row]) if free is None else free

    def _swap(self, one: int, other: int) -> None:
        if one == other:
            return
        self._cache.swap_rows(one, other)
        columns: tuple[list[Any], ...] = (self._owners, self._cached, self._last_used)
        for values in columns:
            values[one], values[other] = values[other], values[one]

    def _extend(self, cache: KvCache, first: int, tokens: list[list[int]], starts: list[int]) -> torch.Tensor:
        longest = max(map(len, tokens))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in tokens], device=self._device)
        counts = torch.tensor([len(row) for row in tokens], device=self._device)
        return self._decoder.extend(
            self._weights, cache, padded, torch.tensor(starts, device=self._device), counts, first
        )

    def _decode(self) -> None:
        last = [[turn.tokens[-1]] for turn in self._active]
        starts = [len(self._cached[row]) for row in range(len(self._active))]
        hidden = self._extend(self._cache, 0, last, starts)
        for row, turn in enumerate(self._active):
            self._cached[row].append(turn.tokens[-1])
        self.stats.decode_steps += 1
        self._sample(hidden, 0)

    def _sample(self, hidden: torch.Tensor, first: int) -> None:
        """Sample a token for each active turn from row ``first`` on; those that end leave."""
        logits = self._decoder.logits(self._weights, hidden)
        tokens, logprobs = sample(logits, [turn.sampler for turn in self._active[first:]])
        ended: list[tuple[_Turn, StopCause]] = []
        for turn, token, logprob in zip(self._active[first:], tokens, logprobs, strict=True):
            turn.tokens.append(token)
            turn.logprobs.append(logprob)
            self.stats.sampled_tokens += 1
            if cause := self._stop_cause(turn):
                ended.append((turn, cause))
        for turn, cause in ended:
            self._leave(turn)
            if not turn.result.cancelled():
                turn.result.set_result(Generated(turn.tokens, turn.logprobs, cause))

    def _stop_cause(self, turn: _Turn) -> StopCause | None:
        params = turn.sampler.params
        if turn.tokens[-1] == self._chat.end:
            return StopCause.END
        if params.stop:
            text = self._chat.text(turn.tokens)
            if any(stop in text for stop in params.stop):
                return StopCause.STOP
        if len(turn.tokens) >= params.max_tokens or len(turn.prompt) + len(turn.tokens) >= self.max_length:
            return StopCause.LENGTH
        return None

    def _leave(self, turn: _Turn) -> None:
        row = self._active.index(turn)
        last = len(self._active) - 1
        self._swap(row, last)
        self._active[row] = self._active[last]
        self._active.pop()

    def _fail_all(self, error: Exception) -> None:
        with self._changed:
            failed, self._active, self._pending = [*self._active, *self._pending], [], []
            self._owners = [None] * len(self._owners)
            self._prefix = []
        for turn in failed:
            if not turn.result.done():
                turn.result.set_exception(error)


def _shared_length(one: list[int], other: list[int]) -> int:
    """How many tokens two lists begin with in common."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
