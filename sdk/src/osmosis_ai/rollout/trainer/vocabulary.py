"""The vocabulary of the trainer.

A ``RolloutRequest`` goes out as an init. While the rollout runs, each of its chat calls is a ``ChatCall`` that the
``Completer`` answers. The terminal callback, or the reason why there was none, becomes a ``RolloutOutcome``.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.reward_parts import known_components
from osmosis_ai.rollout.core.schemas import MessageDict, RolloutRequest, RolloutResponse
from osmosis_ai.rollout.trainer import defaults
from osmosis_ai.rollout.trainer.tokens import TurnTokens


class Ending(Enum):
    """How a rollout ended for the trainer, a server that says nothing included.

    What a result says of itself is another thing: `osmosis_ai.rollout.core.results.Outcome`, in its ``extra_fields``.
    """

    COMPLETED = "COMPLETED"
    """The server reported COMPLETED."""
    ERROR = "ERROR"
    """The server reported ERROR."""
    REFUSED = "REFUSED"
    """The server never accepted the rollout."""
    TIMED_OUT = "TIMED_OUT"
    """No terminal callback came in time."""
    LOST = "LOST"
    """The server was started again and, within a grace period, reported nothing of it."""
    CANCELLED = "CANCELLED"
    """The trainer's program ended it: by `Trainer.cancel`, or by leaving the trainer. Never dispatched again."""


Outcome = Ending
"""The name of `Ending` before there were two kinds of outcome."""


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One chat call of a running rollout."""

    rollout_id: str
    messages: list[MessageDict]
    """The whole conversation so far."""
    tools: list[dict[str, Any]]
    """The tools of the rollout's 202, as the server sent them."""
    sampling: dict[str, Any]
    """Every other field of the request's body: ``model``, ``temperature``, ``seed``, ..."""
    weights_version: int = 0
    """How often the weights were updated before; see ``Trainer.weights_update``."""


Completer = Callable[[ChatCall], Awaitable[CompletionsResult]]
"""What generates the next message. Calls of different rollouts run at the same time in one event loop."""


@dataclass(frozen=True, slots=True)
class RolloutOutcome:
    """The end of one rollout."""

    request: RolloutRequest
    outcome: Ending
    result: RolloutResponse | None
    """The terminal callback, where there was one."""
    problem: str | None
    """One sentence, ``None`` if COMPLETED. It may hold text from the wire."""
    turns: int
    """Chat calls answered; a repeated call counts once."""
    tool_calls: int
    """Tool calls in those answers."""
    latency_seconds: float
    """From the first init attempt to the end."""
    rewrites: tuple[str, ...] = ()
    """What the agent changed or dropped of what was said before, replies included: a sentence each, the first ten."""
    weights_versions: tuple[int, ...] = ()
    """Which weights generated each turn; see ``Trainer.weights_update``."""
    tokens: tuple[TurnTokens, ...] = ()
    """Of each turn, where the completer gave token ids; ``training_rows`` makes rows of them."""
    is_systemic: bool = False
    """Whether the server will accept no other rollout either; ``problem`` says why."""

    @property
    def rewrote_messages(self) -> bool:
        """Whether the agent changed or dropped what was said before, which the protocol forbids."""
        return bool(self.rewrites)

    @property
    def reward(self) -> float | None:
        """The reward of a COMPLETED rollout. A failure never has one."""
        return self.result.reward if self.result and self.outcome is Ending.COMPLETED else None

    @property
    def reward_components(self) -> dict[str, float]:
        """What the reward of a COMPLETED rollout is made of, as far as the server tells."""
        return known_components(self.result.extra_fields) if self.result and self.outcome is Ending.COMPLETED else {}

    @property
    def finish_reason(self) -> str | None:
        """The server's finish reason, free text, where there was a callback."""
        return self.result.finish_reason if self.result else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerLimits:
    """Bounds of one trainer."""

    concurrency: int = defaults.CONCURRENCY
    """Rollouts in flight: sent to the server and not yet ended."""
    rollout_timeout_seconds: float = defaults.ROLLOUT_TIMEOUT_SECONDS
    """From the first init attempt to the terminal callback."""
    tools_wait_seconds: float = 30.0
    """How long a chat call waits for the init's reply, which alone names the tools."""
    max_body_bytes: int = 64 * 1024 * 1024
    """Largest callback body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedispatchPolicy:
    """When a rollout that failed is sent again, as a new rollout under a new id: ``<id>.2``, ``<id>.3``, ..."""

    max_attempts: int = 3
    """Rollouts started for one request, the first included."""
    outcomes: frozenset[Ending] = frozenset({Ending.ERROR, Ending.LOST, Ending.TIMED_OUT})
    """Which ends are worth another attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When an init is sent again, always with the same body, so that it cannot start two rollouts."""

    attempt_timeout_seconds: float = 30.0
    """Limit of one attempt."""
    max_failed_attempts: int = 4
    """Answers such as 500 that a repeat may cure. 429 and 503 are not counted: they ask for a later repeat."""
    unreachable_seconds: float = 30.0
    """How long the server may give no HTTP answer at all."""
    base_delay_seconds: float = 0.2
    """Backoff after the first failure; doubles with each further one."""
    max_delay_seconds: float = 5.0
    """Largest backoff."""
    max_retry_after_seconds: float = 60.0
    """Largest ``Retry-After`` that is honoured in full."""
