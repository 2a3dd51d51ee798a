"""What a run in this process came to: the result of one row, and of a batch.

A ``RunAccount`` is opened before the run and closed once, by ``ended`` or ``failed``. Whatever the run came to, its
result holds what it cost until then.
"""

import time
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_jsonable_python

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext, RolloutResult
from osmosis_ai.rollout.core.loop_blocks import blocks_of
from osmosis_ai.rollout.core.results import Misfit, problem_of
from osmosis_ai.rollout.core.schemas import MessageDict
from osmosis_ai.rollout.core.slips import told_of
from osmosis_ai.rollout.core.where import place_of_function
from osmosis_ai.rollout.run.errors import ProviderError, SystemicProviderError
from osmosis_ai.rollout.run.models.protocol import LocalLLMClientProtocol
from osmosis_ai.rollout.run.models.replies import token_count
from osmosis_ai.rollout.run.results.entry import RunNotes
from osmosis_ai.rollout.run.zero_reasons import zero_reason

_SHORTEST_DURATION_MS = 1e-6


@dataclass
class LocalRunResult(RunNotes):
    """One run of one row.

    ``token_usage`` holds ``prompt_tokens``, ``completion_tokens``, ``total_tokens`` and ``num_llm_calls``; it is empty
    where a run failed before it cost anything. ``messages`` is the conversation as far as it went.
    """

    row_index: int
    success: bool
    result: RolloutResult | None = None
    error: str | None = None
    duration_ms: float = 0.0
    token_usage: dict[str, int] = field(default_factory=dict)
    messages: list[MessageDict] = field(default_factory=list)
    num_tool_calls: int = 0


@dataclass
class LocalBatchResult:
    """All rows that were attempted, in order."""

    results: list[LocalRunResult]
    total: int
    passed: int
    failed: int
    total_duration_ms: float
    total_tokens: int
    stopped_early: bool = False
    stop_reason: str | None = None


@dataclass
class RunAccount:
    """One run of ``agent_loop`` on one row; ``ctx`` is there as soon as the run has one."""

    row_index: int
    agent_loop: RolloutAgentLoop
    llm_client: LocalLLMClientProtocol
    ctx: RolloutContext | None = None
    started_seconds: float = field(default_factory=time.monotonic)

    def ended(self, ctx: RolloutContext, result: RolloutResult) -> LocalRunResult:
        """What ``result``, which the agent returned, makes of the run."""
        if isinstance(result, RolloutResult) and (misfit := problem_of(result)):
            return self._unfit(ctx, misfit, result)
        success = result.status == "COMPLETED"
        metrics = result.metrics
        messages = result.final_messages or ctx.transcript.messages()
        if isinstance(messages, list):
            ctx.tell_of_rewrite(ctx.transcript.check(messages))
        cause = ctx.transcript.error
        return self._result(
            success=success,
            result=result,
            error=None if success else result.error_message,
            token_usage=_usage(metrics if metrics is not None else self.llm_client.get_metrics()),
            error_kind=None
            if success
            else cause.failure.value
            if isinstance(cause, ProviderError)
            else "agent reported ERROR",
            messages=messages,
            num_tool_calls=getattr(metrics, "num_tool_calls", 0),
            zero_reason=_zero_reason(ctx, result, messages) if success else None,
        )

    def _unfit(self, ctx: RolloutContext, misfit: Misfit, result: RolloutResult) -> LocalRunResult:
        """What a server could not send."""
        place = place_of_function(self.agent_loop.run)
        is_of_reward = misfit.field == "reward"
        return self._result(
            success=False,
            result=result if is_of_reward else None,
            error=f"invalid result: {misfit}",
            token_usage=self._token_usage(),
            error_kind="reward" if is_of_reward else "invalid result",
            messages=result.final_messages if is_of_reward else ctx.transcript.messages(),
            where=[place] if place else [],
            hint=misfit.hint,
        )

    def failed(self, error: str, kind: str, raised: Exception | None = None) -> LocalRunResult:
        """A failure that says ``error``; of what the agent's code ``raised``, also where and what to do."""
        metrics = self.ctx.metrics_so_far() if self.ctx else None
        return self._result(
            success=False,
            error=error,
            token_usage=self._token_usage(),
            error_kind=kind,
            messages=self.ctx.transcript.messages() if self.ctx else [],
            num_tool_calls=metrics.num_tool_calls if metrics else 0,
            **(told_of(raised, self.agent_loop.run) if raised is not None else {}),
        )

    def charge(self, error: SystemicProviderError) -> None:
        """Fill in what this run cost until ``error`` ended all of them."""
        error.duration_ms = elapsed_ms(self.started_seconds)
        error.tokens = self._token_usage().get("total_tokens", 0)

    def _result(self, **ended: Any) -> LocalRunResult:
        cost_usd = getattr(self.llm_client, "cost_usd", None)
        return LocalRunResult(
            row_index=self.row_index,
            duration_ms=elapsed_ms(self.started_seconds),
            cost_usd=cost_usd if isinstance(cost_usd, float) else None,
            rewritten=next(iter(self.ctx.transcript.rewritten), None) if self.ctx else None,
            sampling_ignored=list(self.ctx.sampling_ignored) if self.ctx else [],
            event_loop_blocked=blocks_of(self.ctx) if self.ctx else [],
            **ended,
        )

    def _token_usage(self) -> dict[str, int]:
        """What the client counted, even where the run failed; empty if that is nothing."""
        usage = _usage(self.llm_client.get_metrics())
        return usage if any(usage.values()) else {}


def batch_of(results: list[LocalRunResult], started_seconds: float, stop_reason: str | None) -> LocalBatchResult:
    """The batch of ``results``, begun at ``started_seconds`` of the monotonic clock."""
    passed = sum(result.success for result in results)
    return LocalBatchResult(
        results=results,
        total=len(results),
        passed=passed,
        failed=len(results) - passed,
        total_duration_ms=elapsed_ms(started_seconds),
        total_tokens=sum(result.token_usage.get("total_tokens", 0) for result in results),
        stopped_early=stop_reason is not None,
        stop_reason=stop_reason,
    )


def elapsed_ms(started_seconds: float) -> float:
    """Milliseconds since ``started_seconds`` of the monotonic clock; never 0."""
    return max((time.monotonic() - started_seconds) * 1000, _SHORTEST_DURATION_MS)


def _usage(metrics: Any) -> dict[str, int]:
    prompt_tokens, response_tokens = token_count(metrics.prompt_tokens), token_count(metrics.response_tokens)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": response_tokens,
        "total_tokens": prompt_tokens + response_tokens,
        "num_llm_calls": token_count(metrics.num_llm_calls),
    }


def _zero_reason(ctx: RolloutContext, result: RolloutResult, messages: list[MessageDict]) -> str | None:
    of_model = getattr(ctx.watcher, "last", None)
    known = [message for message in messages if isinstance(message, dict)]
    tools: list[Any] = to_jsonable_python(ctx.tools, exclude_none=True)  # schema objects or their JSON
    return zero_reason((of_model, result.finish_reason), known, [tool["function"]["name"] for tool in tools])
