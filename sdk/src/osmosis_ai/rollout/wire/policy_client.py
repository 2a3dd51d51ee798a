"""Calls of a rollout of 0.3: its policy is any OpenAI chat API, which is told the tools with each.

See ``docs/protocol-0.3.md``, section 5. Nothing is sent that the agent did not say, but for the name of a model, which
such an API wants: a temperature or a number of tokens of ours would overrule the trainer's.
"""

from typing import Any

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import CompletionsRequest, MessageDict
from osmosis_ai.rollout.wire.chat import ChatBody, as_json
from osmosis_ai.rollout.wire.client import OsmosisLLMClient

MODEL = "osmosis-rollout"


class _OpenAIBody(ChatBody):
    def __init__(self, rollout_id: str, transcript: Any, tools: list[dict[str, Any]]) -> None:
        super().__init__(rollout_id, transcript)
        self._tools = tools

    def _encode_sampling(self, fields: dict[str, Any]) -> bytes:
        sampling = {name: value for name, value in fields.items() if value is not None}
        sampling.pop("rollout_id", None)
        sampling.pop("tools", None)
        request = CompletionsRequest(messages=[], rollout_id=self._rollout_id, **sampling)
        named = request.model_dump(include=set(sampling), exclude_none=True)
        tools = {"tools": self._tools} if self._tools else {}
        return as_json({"model": MODEL, **sampling, **named, **tools})[:-1]


class PolicyClient(OsmosisLLMClient):
    """As ``OsmosisLLMClient``, for a trainer that speaks 0.3; ``tools`` are those that it is told of."""

    chat_path = "/chat/completions"

    def __init__(self, *, tools: list[dict[str, Any]], **about: Any) -> None:
        super().__init__(**about)
        self._chat = _OpenAIBody(self.rollout_id, self.transcript, tools)

    async def chat_completions(
        self,
        messages: list[MessageDict],
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: Any = None,
        logprobs: bool | None = None,
        **kwargs: Any,
    ) -> CompletionsResult:
        """As the base class does; what is ``None`` is left out."""
        return await super().chat_completions(messages, temperature, top_p, max_tokens, stop, logprobs, **kwargs)
