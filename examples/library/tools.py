"""The agent's tools: two ways into a box of notes.

A tool is a pydantic model: its docstring and fields are what the model is told, its `run` is what happens. Arguments
that do not fit the fields never reach `run`; the model is told what was wrong with them.
"""

import asyncio
import json
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from osmosis_ai.rollout import (
    OpenAIFunctionToolSchema,
    ToolArgumentError,
    ToolExecutionError,
    create_tool_error_result,
    create_tool_result,
    get_tool_call_info,
    serialize_tool_result,
)

NOTES: dict[str, dict[str, str]] = {
    note["id"]: note for note in json.loads((Path(__file__).parent / "notes.json").read_text(encoding="utf-8"))
}


class Tool(BaseModel):
    """One call of a tool, with the arguments the model gave."""

    model_config = ConfigDict(extra="forbid")

    async def run(self) -> Any:
        """Do it; what comes back is written as text. Raise `ToolExecutionError` to tell the model why it cannot be."""
        raise NotImplementedError


class Search(Tool):
    """Find notes that have any of the given words; those with most of them come first."""

    words: Annotated[str, Field(min_length=1, description="Words to look for, separated by spaces")]
    limit: Annotated[int, Field(ge=1, le=10, description="How many notes at most")] = 5

    async def run(self) -> list[dict[str, str]]:
        """Ids and names, best first."""
        await asyncio.sleep(0)  # where a real search would wait for its index
        wanted = words_of(self.words)
        hits = {note_id: len(wanted & words_of(note["text"])) for note_id, note in NOTES.items()}
        best = sorted((note_id for note_id, count in hits.items() if count), key=lambda note_id: -hits[note_id])
        return [{"id": note_id, "name": NOTES[note_id]["name"]} for note_id in best[: self.limit]]


class Read(Tool):
    """Open one note."""

    id: Annotated[str, Field(description="Id of the note, as search gives it")]

    async def run(self) -> str:
        """The text of the note."""
        if self.id not in NOTES:
            raise ToolExecutionError(f"there is no note {self.id!r}; search gives the ids")
        return NOTES[self.id]["text"]


TOOLS: dict[str, type[Tool]] = {"search": Search, "read": Read}


def words_of(text: str) -> set[str]:
    """The words of a text, in lower case."""
    return set(re.findall(r"\w+", text.lower()))


def schema_of(name: str, tool: type[Tool]) -> OpenAIFunctionToolSchema:
    """What the model is told of a tool."""
    parameters = tool.model_json_schema()
    description = parameters.pop("description")
    for part in (parameters, *parameters["properties"].values()):
        part.pop("title")  # pydantic's: it says nothing that the name does not, and costs tokens
    function = {"name": name, "description": description, "parameters": {"required": [], **parameters}}
    return OpenAIFunctionToolSchema.model_validate({"type": "function", "function": function})


async def call_tool(tool_call: dict[str, Any]) -> dict[str, str]:
    """Answer one tool call of the model. A bug in a tool is no answer: it escapes, and ends the rollout as an ERROR."""
    call_id = "unknown"
    try:
        call_id, name, arguments = get_tool_call_info(tool_call)
        if name not in TOOLS:
            raise ToolExecutionError(f"no such tool; there are {', '.join(TOOLS)}")
        result = await TOOLS[name].model_validate(arguments).run()
    except ToolArgumentError as error:
        return create_tool_error_result(error.tool_call_id or call_id, str(error))
    except ToolExecutionError as error:
        return create_tool_error_result(call_id, str(error))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return create_tool_error_result(call_id, f"argument {'.'.join(map(str, first['loc']))}: {first['msg']}")
    return create_tool_result(call_id, serialize_tool_result(result))
