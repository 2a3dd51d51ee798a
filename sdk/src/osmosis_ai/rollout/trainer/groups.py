"""Groups: several samples of one problem, handed over together as soon as the last is there.

::

    async with trainer.groups(requests, size=8, per_update=16, max_lag=1) as groups:
        async for group in groups:
            ...                                    # after every 16th:
            async with trainer.weights_update():
                ...

Invariant: a group is handed over at most ``max_lag`` updates of the weights after it was started. So no more groups are
open than that leaves time for, the ones that are due go first, and one that is late all the same, as the weights were
updated sooner than said, is given up and sampled anew. A failure is no sample: it is run again, alone.
"""

import asyncio
import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self

from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.trainer.errors import InitRefusedError
from osmosis_ai.rollout.trainer.tries import id_of_try
from osmosis_ai.rollout.trainer.vocabulary import Ending, RedispatchPolicy, RolloutOutcome
from osmosis_ai.rollout.trainer.weights import Weights


class Sampler(Protocol):
    """What samples: a ``Trainer``."""

    weights: Weights

    async def run_again(self, request: RolloutRequest, policy: RedispatchPolicy) -> list[RolloutOutcome]:
        """All attempts at one sample."""
        ...


@dataclass(frozen=True, slots=True)
class Group:
    """The samples of one problem."""

    problem: RolloutRequest
    """As it was given; the samples' ids are its id and ``-0``, ``-1``, ..."""
    size: int
    """Samples asked for."""
    samples: tuple[RolloutOutcome, ...]
    """Those that are COMPLETED and have a reward, in the order of their numbers."""
    failures: tuple[RolloutOutcome, ...]
    """All others; of a sample that was run again, those before the last."""
    lag: int
    """How many updates of the weights there were from its start to its hand-over."""

    @property
    def is_whole(self) -> bool:
        """Whether no sample is missing."""
        return len(self.samples) == self.size

    @property
    def ids(self) -> tuple[str, ...]:
        """The rollout ids of the samples."""
        return tuple(sample.request.rollout_id for sample in self.samples)

    @property
    def rewards(self) -> tuple[float, ...]:
        """One for each of the samples; a failure has none, and none is not 0."""
        return tuple(sample.reward for sample in self.samples if sample.reward is not None)

    @property
    def mean(self) -> float | None:
        """Of the rewards; ``None`` without one."""
        return statistics.fmean(self.rewards) if self.rewards else None

    @property
    def spread(self) -> float:
        """Standard deviation of the rewards, divisor n; 0.0 where all are equal: then the group teaches nothing."""
        return statistics.pstdev(self.rewards) if self.rewards else 0.0


class _Open:
    """A group that is not handed over."""

    def __init__(self, problem: RolloutRequest, version: int, tries: int) -> None:
        self.problem = problem
        self.version = version
        self.tries = tries
        self.id = id_of_try(problem.rollout_id, tries)
        self.sampling: asyncio.Task[list[list[RolloutOutcome]]]


class Groups:
    """An asynchronous iterator over the groups of ``problems``, in the order in which they are whole.

    Made by ``Trainer.groups``. Leaving it cancels what is open.
    """

    def __init__(
        self,
        trainer: Sampler,
        problems: Iterable[RolloutRequest],
        size: int,
        per_update: int,
        max_lag: int,
        redispatch: RedispatchPolicy,
    ) -> None:
        for name, value, least in (("size", size, 1), ("per_update", per_update, 1), ("max_lag", max_lag, 0)):
            if value < least:
                raise ValueError(f"{name} must be {least} or more, got {value}.")
        self._trainer = trainer
        self._problems: Iterator[RolloutRequest] = iter(problems)
        self._size = size
        self._per_update = per_update
        self._max_lag = max_lag
        self._redispatch = redispatch
        self._open: list[_Open] = []
        self._again: deque[_Open] = deque()
        self._given_since_update = 0
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._trainer.weights.listeners.add(self._note_update)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._trainer.weights.listeners.discard(self._note_update)
        tasks = [group.sampling for group in self._open]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Group:
        """The next group.

        Raises:
            StopAsyncIteration: all have been handed over.
            InitRefusedError: the server will accept no rollout at all.
            ValueError: the id of a problem was used before, or ends like that of a further try, ``..2``.
        """
        while True:
            self._changed.clear()
            self._start_what_may_start(is_waited_for=True)
            if not self._open:
                raise StopAsyncIteration
            if (group := self._due()) is not None:
                self._open.remove(group)
                self._given_since_update += 1
                return self._made(group)
            await self._changed.wait()

    def _note_update(self) -> None:
        self._given_since_update = 0
        for group in [g for g in self._open if self._lag(g) > self._max_lag]:
            self._open.remove(group)
            group.sampling.cancel()
            self._again.append(group)
        self._start_what_may_start(is_waited_for=False)
        self._changed.set()

    def _lag(self, group: _Open) -> int:
        return self._trainer.weights.version - group.version

    def _left(self, *, is_waited_for: bool) -> int:
        """How many more are taken before the next update; one that is waited for will be, whatever was said."""
        return max(self._per_update - self._given_since_update, int(is_waited_for))

    def _start_what_may_start(self, *, is_waited_for: bool) -> None:
        room = self._left(is_waited_for=is_waited_for) + self._max_lag * self._per_update
        while len(self._open) < room:
            if self._again:
                given_up = self._again.popleft()
                problem, tries = given_up.problem, given_up.tries + 1
            elif (fresh := next(self._problems, None)) is not None:
                problem, tries = fresh, 1
            else:
                return
            group = _Open(problem, self._trainer.weights.version, tries)
            group.sampling = asyncio.create_task(self._sample(group))
            group.sampling.add_done_callback(lambda task: self._changed.set())
            self._open.append(group)

    async def _sample(self, group: _Open) -> list[list[RolloutOutcome]]:
        async with asyncio.TaskGroup() as samples:
            tasks = [
                samples.create_task(
                    self._trainer.run_again(
                        group.problem.model_copy(
                            update={"rollout_id": f"{group.id}-{number}", "idempotency_key": None}
                        ),
                        self._redispatch,
                    )
                )
                for number in range(self._size)
            ]
        return [task.result() for task in tasks]

    def _due(self) -> _Open | None:
        """The oldest finished group that may go now without one that is due before it coming too late."""
        finished = sorted((g for g in self._open if g.sampling.done()), key=lambda g: g.version)
        return next((group for group in finished if self._may_go(group)), None)

    def _may_go(self, group: _Open) -> bool:
        left = self._left(is_waited_for=True) - 1
        others = [self._lag(g) for g in self._open if g is not group]
        # Of the oldest any may go: nothing is more urgent, also where some will be late whatever is done.
        return self._lag(group) >= max(others, default=0) or all(
            sum(lag >= self._max_lag - later for lag in others) <= left + later * self._per_update
            for later in range(self._max_lag + 1)
        )

    def _made(self, group: _Open) -> Group:
        try:
            attempts = group.sampling.result()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        outcomes = [outcome for of_sample in attempts for outcome in of_sample]
        for outcome in outcomes:
            if outcome.is_systemic and outcome.outcome is Ending.REFUSED:
                raise InitRefusedError(outcome.problem or "The server accepts no rollout.", systemic=True)
        last = [of_sample[-1] for of_sample in attempts]
        samples = tuple(outcome for outcome in last if outcome.reward is not None)
        failures = tuple(outcome for outcome in outcomes if outcome.reward is None)
        return Group(group.problem, self._size, samples, failures, self._lag(group))
