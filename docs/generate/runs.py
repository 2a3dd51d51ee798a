"""The JSON Schema and the table of one run as ``test``, ``eval`` and ``trainer`` tell of it (``docs/json.md``)."""

import json
from dataclasses import fields
from typing import Any

from pydantic import create_model

from docs.generate import tables
from docs.generate.schemas import Extra, says, schema_of
from osmosis_ai.rollout.run.results.entry import RunEntry
from osmosis_ai.rollout.trainer.vocabulary import Ending

NAME = "run"
ABOUT = Extra(
    {
        "row_index": says("Which row of the dataset; 0 is the first.", minimum=0),
        "repeat": says("Which run of that row, from 0.", minimum=0),
        "rollout_id": says("What the agent knew it by, as its traces do."),
        "success": says("Whether it came to its end, which says nothing of its reward."),
        "status": says("`COMPLETED`, or how it ended otherwise.", enum=[ending.value for ending in Ending]),
        "error": says("Why it did not come to its end, in a sentence."),
        "error_kind": says("What failed, in a word or two, to count by."),
        "where": says("Places in the agent's code where it failed, the innermost first."),
        "hint": says("What to do about it, where that is known."),
        "reward": says("The agent's own; null where there is none: a failure has no reward of 0."),
        "reward_components": says("What the reward is made of, by name."),
        "zero_reason": says("What else than a wrong answer would explain a 0."),
        "finish_reason": says("As the agent says."),
        "turns": says("Chat calls.", minimum=0),
        "tool_calls": says("Tool calls.", minimum=0),
        "duration_ms": says("From its start to its end; of `trainer`, from the first init.", minimum=0),
        "token_usage": says(
            "`prompt_tokens`, `completion_tokens`, `total_tokens`, `num_llm_calls`; empty where nothing is known."
        ),
        "cost_usd": says("Where LiteLLM knows the price."),
        "rewritten": says("The first message that the agent changed or dropped."),
        "sampling_ignored": says("Sampling settings that a chat call left out or replaced."),
        "event_loop_blocked": says("`place` and `seconds` of each time that the agent blocked the event loop."),
        "ground_truth": says("The row's."),
        "metadata": says("The row's other columns."),
        "messages": says("The conversation, as far as it went."),
    }
)


def schema() -> dict[str, Any]:
    """The JSON Schema."""
    model = create_model("RunEntry", **{each.name: (each.type, ...) for each in fields(RunEntry)})  # type: ignore[call-overload]
    return schema_of(NAME, model, ABOUT) | {"description": "One run of a row; a command may tell more of it."}


def files() -> dict[str, str]:
    """The schema file by name."""
    return {f"{NAME}.schema.json": json.dumps(schema(), indent=2) + "\n"}


def table() -> dict[str, str]:
    """The table of ``docs/json.md``: every field is always there."""
    found = schema()
    lines = ["| field | type | meaning |", "|---|---|---|"]
    for name, about in found["properties"].items():
        lines.append(f"| `{name}` | {tables.type_of(about, found)} | {about['description']} |")
    return {NAME: "\n".join(lines) + "\n"}
