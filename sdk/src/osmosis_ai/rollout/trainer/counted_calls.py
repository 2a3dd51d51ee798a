"""What a policy that is no model counts: its calls, their time, and one token for every four characters."""

import json
import time
from collections.abc import Sequence

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import MessageDict, RolloutMetrics

CHARACTERS_PER_TOKEN = 4


class CountedCalls:
    """The counters that ``LocalLLMClientProtocol`` asks for."""

    def __init__(self) -> None:
        self._metrics = RolloutMetrics()

    def reset_metrics(self) -> None:
        """Set all counters to zero."""
        self._metrics = RolloutMetrics()

    def get_metrics(self) -> RolloutMetrics:
        """A copy of the counters: calls, latency in milliseconds, approximate tokens."""
        return self._metrics.model_copy()

    def _count_call(self, prompt_tokens: int, response_tokens: int, latency_ms: float = 0.0) -> None:
        self._metrics.num_llm_calls += 1
        self._metrics.prompt_tokens += prompt_tokens
        self._metrics.response_tokens += response_tokens
        self._metrics.llm_latency_ms += latency_ms

    def _counted_result(
        self, messages: Sequence[MessageDict], message: MessageDict, started_seconds: float
    ) -> CompletionsResult:
        """``message``, counted as said after ``messages``; ``started_seconds`` is of ``time.perf_counter``."""
        prompt_tokens, response_tokens = sum(map(_tokens, messages)), _tokens(message)
        self._count_call(prompt_tokens, response_tokens, (time.perf_counter() - started_seconds) * 1000)
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": response_tokens,
            "total_tokens": prompt_tokens + response_tokens,
        }
        finish_reason = "tool_calls" if message.get("tool_calls") else "stop"
        return CompletionsResult(message=message, token_ids=[], logprobs=[], usage=usage, finish_reason=finish_reason)


def _tokens(message: MessageDict) -> int:
    return -(-len(json.dumps(message, ensure_ascii=False, default=str)) // CHARACTERS_PER_TOKEN)
