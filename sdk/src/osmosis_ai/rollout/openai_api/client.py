"""An ``openai.AsyncOpenAI`` whose calls go to a ``ChatApi``, without a socket."""

import importlib
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.openai_api.chat_api import ChatApi

if TYPE_CHECKING:
    from openai import AsyncOpenAI

BASE_URL = "http://rollout.invalid/v1"
"""Never resolved: the client has a transport of its own."""


def client_for(api: ChatApi, **options: Any) -> "AsyncOpenAI":
    """A client; ``options`` are ``AsyncOpenAI``'s.

    Raises:
        ImportError: the package ``openai`` is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise ImportError(
            "ctx.openai_client() needs the package openai; install the extra 'openai': osmosis-ai[openai]."
        ) from error
    # Older clients are made with httpx, newer ones with its successor; both have the same names.
    base = next(kind for kind in openai.DefaultAsyncHttpxClient.__mro__ if kind.__name__ == "AsyncClient")
    http: Any = importlib.import_module(base.__module__.partition(".")[0])

    class Transport(http.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            body = await request.aread()
            answer = await api.answer(request.method, request.url.path, request.headers, body)
            return http.Response(answer.status, headers=answer.headers, content=answer.body)

    return openai.AsyncOpenAI(
        **{
            "api_key": "rollout",
            "base_url": BASE_URL,
            "max_retries": 0,
            "http_client": http.AsyncClient(transport=Transport()),
            **options,
        }
    )
