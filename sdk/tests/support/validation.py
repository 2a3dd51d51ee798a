"""Agent loops and tools to validate, sound unless a test spoils them."""

import json
from typing import Any

from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.core.validator import (
    ValidationError,
    ValidationResult,
    validate_agent_loop,
)


class Loop:
    """Any object in the place of an agent loop: the validator is there for those that are none."""

    name: Any = "loop"

    def __init__(self, tools: Any = ()) -> None:
        self.tools = list(tools) if isinstance(tools, tuple) else tools

    def get_tools(self, request: RolloutRequest) -> Any:
        return self.tools

    async def run(self, ctx: Any) -> Any: ...


def tool(**function: Any) -> dict[str, Any]:
    complete = {"name": "add", "description": "Adds.", "parameters": parameters()}
    return {"type": "function", "function": {**complete, **function}}


def parameters(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": []}


def without(mapping: dict[str, Any], *path: str) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(mapping))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return copy


def validate(loop: Any, request: RolloutRequest | None = None) -> ValidationResult:
    return validate_agent_loop(loop, request=request)


def validate_tools(*tools: Any) -> ValidationResult:
    return validate(Loop(tools))


def found(records: list[ValidationError]) -> list[tuple[str, str | None]]:
    return [(record.code, record.field) for record in records]
