"""The published schema: every event that a real server writes is valid, and broken ones are not."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.fake_trainer import FakeTrainer
from support.rollouts import INIT, ScriptedAgent, chat_once, client_of, init_body, raising, settings_of, tool, until

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.tools import create_tool_result, execute_tool_calls
from osmosis_ai.rollout.core.trace.format import TraceEvent
from osmosis_ai.rollout.observe.traces.reader import events_of
from osmosis_ai.rollout.server.app import create_app

PATH = Path(__file__).parents[5] / "docs" / "schemas" / "trace-event.schema.json"
SCHEMA = json.loads(PATH.read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


async def everything(ctx: RolloutContext) -> Any:
    messages = list(ctx.request.messages)
    ctx.log_event("pre_llm", anything={"goes": [1, None]})
    messages.append((await ctx.chat(messages, temperature=1)).message)

    async def run(call: dict[str, Any]) -> dict[str, str]:
        if call["id"] == "2":
            raise ValueError("no")
        return create_tool_result(call["id"], "1")

    calls = [{"id": number, "type": "function", "function": {"name": "add"}} for number in ("1", "2")]
    messages += await execute_tool_calls(calls, run, errors_as_results=True)
    messages[0] = {"role": "user", "content": "rewritten"}
    messages.append((await ctx.chat(messages)).message)
    return ctx.complete(messages, reward=1.0)


def _is_delivered(path: Path) -> bool:
    return '"acknowledged"' in path.read_text(encoding="utf-8")


@pytest.mark.slow
async def test_every_event_of_a_real_server_is_valid(tmp_path: Path) -> None:
    agents = {"r1": everything, "r2": raising(ValueError("boom")), "r3": chat_once}
    with FakeTrainer() as trainer:
        for rollout_id, run in agents.items():
            if rollout_id == "r3":
                trainer.chat_answers = [503, 422]
                trainer.completed_answers = [503]
            settings = settings_of(client={"retry_base_delay": 0.01, "retry_max_delay": 0.01})
            app = create_app(ScriptedAgent(run, tools=[tool()]), settings=settings, debug_dir=str(tmp_path))
            async with client_of(app) as client:
                await client.post(INIT, json=init_body(rollout_id, server_url=trainer.url))
                await trainer.result(rollout_id)
                path = tmp_path / f"{rollout_id}.jsonl"
                await until(partial(_is_delivered, path))
    events = [event for rollout_id in agents for event in events_of(tmp_path / f"{rollout_id}.jsonl")]
    problems = [f"{event['event']}: {error.message}" for event in events for error in VALIDATOR.iter_errors(event)]
    assert problems == []
    assert {event["event"] for event in events} >= {*TraceEvent, "pre_llm"} - {TraceEvent.LOOP_BLOCKED}


def test_the_schema_is_one_and_knows_every_event_of_the_server() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["$defs"]) >= set(TraceEvent)


@pytest.mark.parametrize(
    "event",
    [
        {"event": "pre_llm", "rollout_id": "r"},
        {"event": "trace_start", "v": 2},
        {"event": "chat_end", "turn": 0, "latency_ms": 1},
        {"event": "tool_call", "turn": 1, "name": "a", "tool_call_id": "1", "outcome": "well", "latency_ms": 1},
        {"event": "rollout_result", "status": "DONE", "final_messages": [], "extra_fields": {"outcome": "success"}},
        {"event": "delivery", "attempt": 1, "verdict": "lost", "latency_ms": 1},
    ],
    ids=lambda event: event["event"],
)
def test_a_broken_event_is_not_valid(event: dict[str, Any]) -> None:
    whole = event if event["event"] == "pre_llm" else {"rollout_id": "r", "time": 1.0, **event}
    assert not VALIDATOR.is_valid(whole)
