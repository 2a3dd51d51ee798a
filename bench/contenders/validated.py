"""What the FastAPI contenders share: the request's model and the routes."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from bench.contenders.work import ADD_TOOL, Message


class Init(BaseModel):
    """The fields of an init that an agent uses, validated."""

    rollout_id: Annotated[str, Field(min_length=1, max_length=256)]
    server_url: str
    messages: list[Message]
    completion_params: dict[str, Any]
    max_turns: int = 10
    max_tokens_total: int = 8192
    metadata: dict[str, Any] = {}
    api_key: str | None = None


def fastapi_app(start: Callable[[dict[str, Any]], None]) -> FastAPI:
    """An app that validates each init, answers 202 and hands it to ``start``."""
    app = FastAPI()

    @app.post("/v1/rollout/init", status_code=202)
    async def init(request: Init) -> dict[str, Any]:
        start(request.model_dump())
        return {"rollout_id": request.rollout_id, "tools": [ADD_TOOL]}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    return app
