"""A rollout's context as an agent has it, on a policy that is a script."""

from typing import Any

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema, RolloutMetrics, RolloutRequest

REQUEST = RolloutRequest(
    rollout_id="run7-000042",
    server_url="http://trainer",
    messages=[{"role": "user", "content": "2 + 2?"}],
    completion_params={"temperature": 0.5},
    api_key="s3cret",
)


METRICS = RolloutMetrics(
    total_latency_ms=1.0,
    llm_latency_ms=250.5,
    tool_latency_ms=2.0,
    num_llm_calls=3,
    num_tool_calls=4,
    prompt_tokens=100,
    response_tokens=20,
    max_context_tokens=60,
)


REPLY = CompletionsResult({"role": "assistant", "content": "4"}, [], [], {}, "stop")


TOOL = OpenAIFunctionToolSchema.model_validate({"type": "function", "function": {"name": "add", "description": "Add"}})


class Policy:
    """Remembers its calls; gives its answers in turn, or raises them."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers) or [REPLY]
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    async def chat_completions(self, *args: Any, **kwargs: Any) -> CompletionsResult:
        self.calls.append((args, kwargs))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        result: CompletionsResult = answer
        return result

    def get_metrics(self) -> RolloutMetrics:
        return METRICS


def context(policy: Any = None, **fields: Any) -> RolloutContext:
    return RolloutContext(REQUEST, [TOOL], policy or Policy(), **fields)
