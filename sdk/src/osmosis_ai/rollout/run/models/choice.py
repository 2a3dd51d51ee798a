"""From a model's name to a client: what may be named, which key it needs, and who calls it.

Three kinds of models: ``builtin/...`` is a script of ``policies``; a name without a provider's prefix goes to the base
URL, if there is one, as to OpenAI's API; every other name goes through LiteLLM (see ``routes``), to the base URL if
there is one, and is ``openai/`` where it names no provider. All checks here are local.
"""

import inspect
import logging
import os
from typing import Any

from osmosis_ai.rollout.core.text import sendable_key
from osmosis_ai.rollout.run.errors import InvalidModelError, ProviderFailure, SystemicProviderError
from osmosis_ai.rollout.run.models.routes import PLACEHOLDER_API_KEY, has_own_wire, provider_of, trimmed_base_url
from osmosis_ai.rollout.wire.addresses import is_base_url

__all__ = ["make_llm_client"]

logger = logging.getLogger(__name__)

BUILTIN_PREFIX = "builtin/"
ANY_PROVIDER_KEY = "LITELLM_API_KEY"

# The variable to name first; the others are what LiteLLM takes instead.
KEY_VARIABLES: dict[str, tuple[str, ...]] = {
    "ai21": ("AI21_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "cerebras": ("CEREBRAS_API_KEY",),
    "cohere": ("COHERE_API_KEY", "CO_API_KEY"),
    "deepinfra": ("DEEPINFRA_API_KEY",),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "fireworks_ai": ("FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY", "FIREWORKSAI_API_KEY", "FIREWORKS_AI_TOKEN"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "github": ("GITHUB_API_KEY",),
    "groq": ("GROQ_API_KEY",),
    "mistral": ("MISTRAL_API_KEY",),
    "nvidia_nim": ("NVIDIA_NIM_API_KEY",),
    "openai": ("OPENAI_API_KEY",),
    "openrouter": ("OPENROUTER_API_KEY", "OR_API_KEY"),
    "perplexity": ("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"),
    "replicate": ("REPLICATE_API_KEY", "REPLICATE_API_TOKEN"),
    "sambanova": ("SAMBANOVA_API_KEY",),
    "together_ai": ("TOGETHERAI_API_KEY", "TOGETHER_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHER_AI_TOKEN"),
    "xai": ("XAI_API_KEY",),
}


def make_llm_client(model: str, api_key: str | None = None, base_url: str | None = None) -> Any:
    """A client for ``model``: ``ExternalLLMClient``, ``EndpointLLMClient`` or a script of ``policies``.

    Each has ``set_tools``, ``chat_completions``, the metrics methods and ``for_one_run``; ``for_one_run(client)`` of
    this module gives one for each of several runs at a time. Nothing is sent anywhere.

    Raises:
        ProviderError: one sentence that says which flag, variable or package is wrong or missing.
    """
    model = model.strip()
    check(model, api_key, base_url)
    if is_builtin(model, base_url):
        from osmosis_ai.rollout.run.policies import BUILTIN_POLICIES

        return BUILTIN_POLICIES[model]()
    key = api_key or _key_of_variables(model, base_url)
    base_url = trimmed_base_url(model, base_url) if base_url else None
    if base_url and not has_own_wire(model, base_url):
        from osmosis_ai.rollout.run.models.endpoint import EndpointLLMClient

        return EndpointLLMClient(model, key, base_url)
    from osmosis_ai.rollout.run.models.llm_client import ExternalLLMClient

    client = ExternalLLMClient(model, key, base_url)
    if problem := _unknown_provider(client):
        raise InvalidModelError(problem)
    return client


def check(model: str, api_key: str | None, base_url: str | None) -> None:
    """See that there can be such a model, and a key for it.

    Raises:
        InvalidModelError: the name is wrong.
        SystemicProviderError: the key is missing, or no header can carry it.
    """
    if problem := model_problem(model, base_url):
        raise InvalidModelError(problem)
    if not is_builtin(model, base_url) and (problem := key_problem(model, api_key, base_url)):
        raise SystemicProviderError(problem, failure=ProviderFailure.AUTHENTICATION)
    variables = (ANY_PROVIDER_KEY, *KEY_VARIABLES.get(provider_of(model), ()))
    given = {"--api-key": api_key} if api_key else {name: os.environ.get(name) for name in variables}
    for name, key in () if is_builtin(model, base_url) else given.items():
        try:
            sendable_key(key or "none", f"The key of {name}")
        except ValueError as error:
            raise SystemicProviderError(f"{error}.", failure=ProviderFailure.AUTHENTICATION) from None


def for_one_run(client: Any) -> Any:
    """A client with tools and counters of its own, like ``client`` and on the same connections.

    A client of a type unknown here is given back itself: it can then serve one run at a time.
    """
    from osmosis_ai.rollout.run.policies import BUILTIN_POLICIES

    fork = getattr(type(client), "for_one_run", None)
    if callable(fork):
        return fork(client)
    return type(client)() if type(client) in BUILTIN_POLICIES.values() else client


def is_builtin(model: str, base_url: str | None) -> bool:
    """Whether ``model`` is a script of this package: no key, no network."""
    return model.startswith(BUILTIN_PREFIX) and not base_url


def model_problem(model: str, base_url: str | None) -> str | None:
    """What is wrong with the name itself, in a sentence."""
    if not model.strip():
        return "--model is empty: name a model, as in --model gpt-4o."
    if base_url and not has_own_wire(model, base_url):
        return None
    if base_url and not is_base_url(base_url.strip()):
        return f"--base-url {base_url!r} is not a base URL such as http://127.0.0.1:8000."
    if is_builtin(model, base_url):
        from osmosis_ai.rollout.run.policies import BUILTIN_POLICIES

        known = ", ".join(BUILTIN_POLICIES)
        return None if model in BUILTIN_POLICIES else f"Invalid model '{model}': of those built in there is {known}."
    provider, slash, name = model.partition("/")
    if slash and not (provider.strip() and name.strip()):
        return f"Invalid model '{model}': use provider/model, as in openai/gpt-4o."
    return None


def key_problem(model: str, api_key: str | None, base_url: str | None) -> str | None:
    """Which key is missing, in a sentence; an endpoint of one's own and a provider that is not listed need none."""
    provider = provider_of(model)
    variables = KEY_VARIABLES.get(provider, ())
    if api_key or base_url or not variables or any(map(os.environ.get, (ANY_PROVIDER_KEY, *variables))):
        return None
    return (
        f"Missing API key for provider '{provider}': set the variable {variables[0]} or {ANY_PROVIDER_KEY}, or give"
        " --model-api-key."
    )


def _key_of_variables(model: str, base_url: str | None) -> str | None:
    """``LITELLM_API_KEY``, unless the provider's own variable is set: that one LiteLLM finds by itself.

    A provider at a base URL of one's own may want no key; LiteLLM wants one.
    """
    variables = KEY_VARIABLES.get(provider_of(model), ()) if has_own_wire(model, base_url) else ()
    if of_provider := next(filter(None, map(os.environ.get, variables)), None):
        key = of_provider.strip()  # a file of secrets ends with a line break, which LiteLLM would send
        return None if key == of_provider else key
    return os.environ.get(ANY_PROVIDER_KEY) or (PLACEHOLDER_API_KEY if variables and base_url else None)


def _unknown_provider(client: Any) -> str | None:
    look_up = getattr(client._litellm, "get_llm_provider", None)
    if not callable(look_up):
        return None
    try:
        look_up(model=client.model, api_base=client._api_base)
    except Exception as error:  # noqa: BLE001 - LiteLLM raises one type or another, by version
        from osmosis_ai.rollout.run.models.provider_errors import provider_message

        if "provider" not in str(error).lower():
            return f"Invalid model '{client.display_name}': {provider_message(error)}"
        return (
            f"Invalid model '{client.display_name}': LiteLLM does not know the provider"
            f" '{provider_of(client.display_name)}'; use provider/model, as in openai/gpt-4o, or --base-url for an"
            " endpoint of your own."
        )
    return None


async def close_quietly(client: Any) -> None:
    """Close ``client`` if it can be closed; its errors are logged and go no further."""
    close = getattr(client, "close", None)
    if not callable(close):
        return
    try:
        closing = close()
        if inspect.isawaitable(closing):
            await closing
    except Exception:  # the results are already there
        logger.debug("A client could not be closed.", exc_info=True)
