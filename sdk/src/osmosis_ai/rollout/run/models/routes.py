"""Where a model's calls go: which wire its name means, and the base URL as that wire wants it.

A provider's prefix keeps that provider's wire at any base URL; every other name with a base URL is a model of an
OpenAI-compatible endpoint, slashes and all (``Qwen/Qwen3``). Nothing is imported or sent here.
"""

__all__ = ["OPENAI_PREFIX", "PLACEHOLDER_API_KEY", "has_own_wire", "provider_of", "routed", "trimmed_base_url"]

OPENAI_PREFIX = "openai/"
# An endpoint that wants no key still gets one: LiteLLM refuses to call without, and would otherwise hand the endpoint
# whatever OPENAI_API_KEY holds.
PLACEHOLDER_API_KEY = "none"

# LiteLLM's names of providers, as far as they can be meant with a base URL. Written exactly so: "Groq/..." and
# "Snowflake/..." are makers of models, whose models other endpoints serve under those names.
_PROVIDERS_AT_ANY_ADDRESS = """
ai21 anthropic azure azure_ai baseten bedrock cerebras cohere cohere_chat dashscope databricks deepinfra deepseek
docker_model_runner featherless_ai fireworks_ai friendliai gemini github groq hosted_vllm huggingface hyperbolic
litellm_proxy llamafile lm_studio mistral moonshot nebius novita nvidia_nim ollama ollama_chat openrouter perplexity
replicate sagemaker sagemaker_chat sambanova snowflake together_ai vertex_ai volcengine watsonx xai xinference
"""
# Ollama's generate API would have a model that is offered tools write JSON in every turn; its chat API calls tools.
_ALIASES = {"ollama": "ollama_chat"}
# What LiteLLM adds by itself, by provider: a base URL that has it already would have it twice.
_ADDED_PATHS = {
    "anthropic": ("/v1/messages", "/v1"),
    "ollama_chat": ("/api/chat", "/api/generate", "/api", "/v1/chat/completions", "/v1"),
}
_OPENAI_PATHS = ("/chat/completions",)


def provider_of(model: str) -> str:
    """The part before the first slash in lower case; ``openai`` where there is none."""
    provider, slash, _ = model.partition("/")
    return provider.strip().lower() if slash else "openai"


def has_own_wire(model: str, base_url: str | None) -> bool:
    """Whether the model is called through LiteLLM in its provider's way, and not as OpenAI's API at ``base_url``."""
    provider, slash, _ = model.strip().partition("/")
    return not base_url or bool(slash and provider in _PROVIDERS_AT_ANY_ADDRESS.split())


def routed(model: str, base_url: str | None) -> str:
    """The name that LiteLLM gets: ``provider/model``."""
    provider, slash, name = model.partition("/")
    if has_own_wire(model, base_url):
        if not slash:
            return OPENAI_PREFIX + model
        return f"{_ALIASES[provider]}/{name}" if provider in _ALIASES else model
    return model if model.startswith(OPENAI_PREFIX) else OPENAI_PREFIX + model


def trimmed_base_url(model: str, base_url: str) -> str:
    """``base_url`` without the path that every call adds to it, given by mistake, and without a slash at its end."""
    base_url = base_url.strip().rstrip("/")
    provider = routed(model, base_url).partition("/")[0]
    added = _ADDED_PATHS.get(provider, _OPENAI_PATHS)
    return next((base_url.removesuffix(path) for path in added if base_url.endswith(path)), base_url)
