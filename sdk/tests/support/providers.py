"""The providers that the README names, and an endpoint of one's own: how `osmosis` is told to call a stub of each."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from support.adder_project import AGENT_OPTIONS
from support.model_endpoint import Answer, JsonObject, ModelEndpoint
from support.provider_wires import ANTHROPIC, GROQ, OLLAMA, OPENAI, Wire

TIMEOUT_SECONDS = 300.0
"""LiteLLM takes seconds to load, and half a minute on a machine that is busy."""


@dataclass(frozen=True)
class Provider:
    """One provider, and where a call of it arrives."""

    wire: Wire
    model: str
    base_path: str
    path: str
    key_header: str = "authorization"
    is_by_variable: bool = False
    """Whether the address is set by ``OPENAI_BASE_URL``: ``--base-url`` is an endpoint without LiteLLM."""

    def options(self, endpoint: ModelEndpoint) -> list[str]:
        """The model on a command line."""
        if self.is_by_variable:
            return ["--model", self.model, "--model-api-key", "sk"]
        return ["--model", self.model, "--model-api-key", "sk", "--base-url", self.base_url(endpoint)]

    def base_url(self, endpoint: ModelEndpoint) -> str:
        """Of the stub."""
        return endpoint.url.removesuffix("/v1") + self.base_path

    def environment(self, endpoint: ModelEndpoint) -> dict[str, str]:
        """Variables for a process."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
        return kept | ({"OPENAI_BASE_URL": endpoint.url} if self.is_by_variable else {})

    def arguments(self, command: str, endpoint: ModelEndpoint, *arguments: str) -> list[str]:
        """A command line with the agent of ``adder_project``."""
        return [command, *AGENT_OPTIONS, *self.options(endpoint), *arguments]

    def stub(self, answer: Callable[[JsonObject], Answer] | None = None, port: int = 0) -> ModelEndpoint:
        """An endpoint that answers as the provider does, or as ``answer`` says."""
        return ModelEndpoint(otherwise=answer or self.wire.answer, port=port)


ENDPOINT = Provider(OPENAI, "m", "/v1", "/v1/chat/completions")
PROVIDERS = {
    "openai": Provider(OPENAI, "gpt-4o", "/v1", "/v1/chat/completions", is_by_variable=True),
    "anthropic": Provider(ANTHROPIC, "anthropic/claude-sonnet-4-20250514", "", "/v1/messages", "x-api-key"),
    "groq": Provider(GROQ, "groq/llama-3.1-70b-versatile", "/openai/v1", "/openai/v1/chat/completions"),
    "ollama": Provider(OLLAMA, "ollama/llama2", "", "/api/chat"),
}


def system_prompt_of(body: JsonObject) -> str:
    """Of a request, in whatever wire; of one without, what else is said first."""
    content = (body.get("system") or [body["messages"][0]["content"]])[0]
    return content["text"] if isinstance(content, dict) else str(content)
