"""The agent's tools: two ways into a box of notes. The bounds of an argument are part of its annotation."""

import asyncio
import json
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field

from osmosis_ai.rollout import Toolbox, ToolExecutionError, tool

NOTES: dict[str, dict[str, str]] = {
    note["id"]: note for note in json.loads((Path(__file__).parent / "notes.json").read_text(encoding="utf-8"))
}


@tool(timeout_seconds=10)
async def search(
    words: Annotated[str, Field(min_length=1, description="Words to look for, separated by spaces")],
    limit: Annotated[int, Field(ge=1, le=10, description="How many notes at most")] = 5,
) -> list[dict[str, str]]:
    """Find notes that have any of the given words; those with most of them come first."""
    await asyncio.sleep(0)  # where a real search would wait for its index
    wanted = words_of(words)
    hits = {note_id: len(wanted & words_of(note["text"])) for note_id, note in NOTES.items()}
    best = sorted((note_id for note_id, count in hits.items() if count), key=lambda note_id: -hits[note_id])
    return [{"id": note_id, "name": NOTES[note_id]["name"]} for note_id in best[:limit]]


async def read(id: Annotated[str, "Id of the note, as search gives it"]) -> str:  # noqa: A002 - the name that models know
    """Open one note."""
    if id not in NOTES:
        raise ToolExecutionError(f"there is no note {id!r}; search gives the ids")
    return NOTES[id]["text"]


def words_of(text: str) -> set[str]:
    """The words of a text, in lower case."""
    return set(re.findall(r"\w+", text.lower()))


TOOLS = Toolbox(search, read, max_concurrency=8)
