"""External models through LiteLLM, as an agent loop sees them.

A client has the tools and the counters of one run at a time. Runs that go on together each take a client of their own
from ``for_one_run``; these share what is below (connections, LiteLLM), which only the original closes.
"""

import copy
import inspect
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import MessageDict, RolloutMetrics, tool_as_json
from osmosis_ai.rollout.run.errors import ProviderError, ProviderFailure, SystemicProviderError
from osmosis_ai.rollout.run.models import litellm as _litellm_compat, provider_errors
from osmosis_ai.rollout.run.models.optional_fields import fill_in_for
from osmosis_ai.rollout.run.models.replies import completion, is_broken_off, with_objects_as_arguments
from osmosis_ai.rollout.run.models.routes import OPENAI_PREFIX, PLACEHOLDER_API_KEY, routed

__all__ = ["ExternalLLMClient"]

logger = logging.getLogger(__name__)


def _get_litellm() -> Any:
    try:
        litellm: Any = _litellm_compat.import_litellm()
    except ImportError as error:
        raise ProviderError(
            f"LiteLLM, which calls the models, cannot be imported ({error}): install 'osmosis-ai[llm]'.",
            failure=ProviderFailure.MISSING_PACKAGE,
        ) from error
    litellm.suppress_debug_info = True
    fill_in_for(litellm)
    # What a model answers oddly is told with its row.
    warnings.filterwarnings("ignore", "Pydantic serializer warnings", UserWarning)
    if hasattr(litellm, "_async_client_cleanup_registered"):
        litellm._async_client_cleanup_registered = True
    return litellm


class ExternalLLMClient:
    """A model that LiteLLM can call; an ``LLMClientProtocol``.

    ``display_name`` is the model as given; ``model`` is the name LiteLLM gets: a name without a provider means
    ``openai/`` (see ``routes``). ``api_base`` is the base URL of the provider, or of any OpenAI-compatible endpoint, up
    to and including ``/v1``.

    Raises:
        ProviderError: LiteLLM is not installed.
    """

    def __init__(self, model: str = "gpt-5-mini", api_key: str | None = None, api_base: str | None = None) -> None:
        self._name(model, api_key, api_base)
        self._litellm: Any = _get_litellm()

    def _name(self, model: str, api_key: str | None, api_base: str | None) -> None:
        model = model.strip()
        self.display_name = model
        self.model = routed(model, api_base)
        self.call_options: dict[str, Any] = {}
        """Arguments for LiteLLM with every call, such as ``timeout`` in seconds; none by default."""
        self.preflight_warning: str | None = None
        self._api_key = api_key
        self._api_base = api_base
        self._tools: list[Any] | None = None
        self._is_open = True
        self.reset_metrics()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.display_name!r}, api_base={self._api_base!r})"

    def for_one_run(self) -> Self:
        """A client with tools and counters of its own, on the same connections."""
        client = copy.copy(self)
        client._is_open = False  # what is below is the original's to close
        client.clear_tools()
        client.reset_metrics()
        return client

    def set_tools(self, tools: Sequence[Any] | None) -> None:
        """Offer ``tools`` (schema objects or their JSON) from the next call on."""
        self._tools = [tool_as_json(tool) for tool in tools] if tools else None

    def clear_tools(self) -> None:
        """Offer no tools."""
        self._tools = None

    def reset_metrics(self) -> None:
        """Set all counters to zero."""
        self._metrics = RolloutMetrics()
        self._cost_usd: float | None = None

    def get_metrics(self) -> RolloutMetrics:
        """Calls, latency in milliseconds and tokens since ``reset_metrics``; failed calls are not counted."""
        return self._metrics.model_copy()

    @property
    def cost_usd(self) -> float | None:
        """What the calls since ``reset_metrics`` cost, in US dollars; ``None`` where LiteLLM knows no price."""
        return self._cost_usd

    async def chat_completions(self, messages: list[MessageDict], **kwargs: Any) -> CompletionsResult:
        """The next message; ``kwargs`` go to the provider and override everything else.

        Token ids and log probabilities are empty. There is no retry here; see ``patience``.

        Raises:
            SystemicProviderError: no other call would fare better.
            ProviderError: this call failed.
        """
        started_seconds = time.monotonic()
        result, cost_usd = await self._ask(self._arguments(messages, kwargs))
        metrics = self._metrics
        metrics.llm_latency_ms += (time.monotonic() - started_seconds) * 1000
        metrics.num_llm_calls += 1
        metrics.prompt_tokens += result.usage["prompt_tokens"]
        metrics.response_tokens += result.usage["completion_tokens"]
        if cost_usd is not None:
            self._cost_usd = (self._cost_usd or 0.0) + cost_usd
        return result

    async def preflight_check(self) -> None:
        """Make one tiny call, so that what would fail every row is known before the first.

        A problem that may concern this call alone becomes ``preflight_warning``.

        Raises:
            SystemicProviderError: wrong key, no budget, no connection, unknown model.
        """
        self.preflight_warning = None
        try:
            await self._send({**self._common_arguments(), "messages": _PREFLIGHT_MESSAGES, "max_tokens": 1})
        except SystemicProviderError:
            raise
        except ProviderError as error:
            logger.debug("Preflight check of %s: %s", self.model, error)
            if error.failure is ProviderFailure.CONNECTION:
                raise SystemicProviderError(str(error), failure=error.failure) from error
            if error.failure is not ProviderFailure.RATE_LIMIT:
                self.preflight_warning = str(error)

    async def close(self) -> None:
        """Close the connections; may be called again."""
        self.clear_tools()
        close = getattr(self._litellm, "close_litellm_async_clients", None)
        if not self._is_open or not callable(close):
            return
        self._is_open = False
        try:
            closing = close()
            if inspect.isawaitable(closing):
                await closing
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the connections, they are gone
            logger.debug("LiteLLM could not close its clients: %s", error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _common_arguments(self) -> dict[str, Any]:
        # LiteLLM finds the variable of a provider that is named, and of none other.
        needs_placeholder = self._api_base and self.model.startswith(OPENAI_PREFIX)
        key = self._api_key or (PLACEHOLDER_API_KEY if needs_placeholder else None)
        given = {"api_key": key, "api_base": self._api_base}
        return {"model": self.model, **{name: value for name, value in given.items() if value}, **self.call_options}

    def _arguments(self, messages: list[MessageDict], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        tools = {"tools": self._tools} if self._tools is not None else {}
        return {**self._common_arguments(), "messages": messages, **tools, **kwargs}

    async def _send(self, arguments: dict[str, Any]) -> Any:
        try:
            messages = with_objects_as_arguments(arguments["messages"])
            return await self._litellm.acompletion(**{**arguments, "messages": messages})
        except Exception as error:
            raise provider_errors.from_litellm(error, self.model, self._api_base) from error

    async def _ask(self, arguments: dict[str, Any]) -> tuple[CompletionsResult, float | None]:
        """The reply, and its price in US dollars where that is known."""
        response = await self._send(arguments)
        if not response.choices:
            raise ProviderError("The provider's reply holds no choices.", failure=ProviderFailure.MALFORMED_REPLY)
        choice = response.choices[0]
        given = getattr(response, "usage", None)
        usage = {name: getattr(given, name, 0) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
        message = choice.message.model_dump(exclude_none=True, warnings=False)
        if self.model.startswith(OPENAI_PREFIX):  # a field that LiteLLM does not know, it has put aside
            message = {**(message.get("provider_specific_fields") or {}), **message}
        return completion(message, _finish_reason(choice), usage), _cost_usd(response)


_PREFLIGHT_MESSAGES = [{"role": "user", "content": "hi"}]


def _finish_reason(choice: Any) -> Any:
    """As the provider has it: LiteLLM makes "stop" of one that it does not know."""
    fields = getattr(choice, "provider_specific_fields", None)
    native = fields.get("native_finish_reason") if isinstance(fields, dict) else None
    return native if is_broken_off(native) else choice.finish_reason


def _cost_usd(response: Any) -> float | None:
    hidden = getattr(response, "_hidden_params", None)
    cost = hidden.get("response_cost") if isinstance(hidden, dict) else None
    return float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) and cost > 0 else None
