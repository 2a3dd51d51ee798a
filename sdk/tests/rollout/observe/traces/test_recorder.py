"""What a server's traces hold: every rollout of every agent, whole, before its trainer has the result."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.fake_trainer import FakeTrainer
from support.rollouts import INIT, ScriptedAgent, chat_once, client_of, init_body, raising, settings_of, tool, until

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.exceptions import ToolExecutionError
from osmosis_ai.rollout.core.tools import create_tool_result, execute_tool_calls
from osmosis_ai.rollout.observe.traces import buffer as buffer_module
from osmosis_ai.rollout.observe.traces.recorder import without_secrets
from osmosis_ai.rollout.server.app import create_app

Event = dict[str, Any]
CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
    {"id": "c2", "type": "function", "function": {"name": "fail", "arguments": "{}"}},
]


@pytest.fixture
def trainer() -> Any:
    with FakeTrainer() as trainer:
        yield trainer


def events_in(folder: Path, rollout_id: str = "rollout-1") -> list[Event]:
    return [json.loads(line) for line in (folder / f"{rollout_id}.jsonl").read_bytes().splitlines()]


def named(events: list[Event], name: str) -> list[Event]:
    return [event for event in events if event["event"] == name]


async def use_tools(ctx: RolloutContext) -> Any:
    """Three turns: a reply with two tool calls is answered twice, then the result."""
    messages = list(ctx.request.messages)

    async def answer(call: dict[str, Any]) -> dict[str, str]:
        if call["function"]["name"] == "fail":
            raise ToolExecutionError("no such luck")
        return create_tool_result(call["id"], "1")

    for _ in range(2):
        messages.append((await ctx.chat(messages, temperature=0.5)).message)
        messages += await execute_tool_calls(CALLS, answer, errors_as_results=True)
    messages.append((await ctx.chat(messages, temperature=0.7)).message)
    return ctx.complete(messages, reward=0.5)


async def traced(trainer: FakeTrainer, folder: Path, run: Any = use_tools, **fields: Any) -> list[Event]:
    """The events of a rollout as they stand on disk when the trainer has the result."""
    app = create_app(ScriptedAgent(run, tools=[tool()]), settings=settings_of(), debug_dir=str(folder))
    async with client_of(app) as client:
        body = init_body(server_url=trainer.url, api_key="the trainer's key", **fields)
        assert (await client.post(INIT, json=body)).status_code == 202
        await trainer.result("rollout-1")
        return events_in(folder)


async def test_every_step_is_an_event(trainer: FakeTrainer, tmp_path: Path) -> None:
    events = await traced(trainer, tmp_path, metadata={"ground_truth": "4"}, completion_params={"top_k": 3})
    turn = ["chat_start", "chat_end", "tool_call", "tool_call"]
    names = [event["event"] for event in events if event["event"] != "delivery"]
    assert names == ["trace_start", "run_start", *turn, *turn, *turn[:2], "rollout_result"]
    start = events[0]
    assert start["v"] == 1
    assert start["request"]["completion_params"] == {"top_k": 3}
    assert start["request"]["metadata"] == {"ground_truth": "4"}
    assert start["request"]["messages"] == init_body()["messages"]
    assert [offered["function"]["name"] for offered in start["tools"]] == ["add"]
    assert events[1]["queue_ms"] >= 0
    assert [event["outcome"] for event in named(events, "tool_call")] == ["ok", "error"] * 2
    assert [(event["name"], event["tool_call_id"], event["turn"]) for event in named(events, "tool_call")][:2] == [
        ("add", "c1", 1),
        ("fail", "c2", 1),
    ]
    ends = named(events, "chat_end")
    assert all(end["reply"] == trainer.reply and end["usage"] == trainer.usage for end in ends)
    assert all(end["latency_ms"] > 0 and end["finish_reason"] for end in ends)
    assert [event.get("sampling") for event in named(events, "chat_start")] == [
        {"temperature": 0.5},
        None,
        {"temperature": 0.7},
    ]


async def test_the_result_is_what_the_trainer_got(trainer: FakeTrainer, tmp_path: Path) -> None:
    [result] = named(await traced(trainer, tmp_path), "rollout_result")
    assert {key: value for key, value in result.items() if key not in ("event", "time")} == await trainer.result(
        "rollout-1"
    )


async def test_messages_are_written_once(trainer: FakeTrainer, tmp_path: Path) -> None:
    events = await traced(trainer, tmp_path)
    starts = named(events, "chat_start")
    assert [(start["at"], [message["role"] for message in start["appended"]]) for start in starts] == [
        (0, ["user"]),
        (2, ["tool", "tool"]),
        (5, ["tool", "tool"]),
    ]


async def test_a_rewritten_conversation_is_written_whole(trainer: FakeTrainer, tmp_path: Path) -> None:
    async def run(ctx: RolloutContext) -> Any:
        messages = list(ctx.request.messages)
        reply = (await ctx.chat(messages)).message
        reply["content"] = "changed by the agent"
        messages.append(reply)
        await ctx.chat(messages)
        messages[0] = {"role": "user", "content": "another question"}
        await ctx.chat(messages)
        return ctx.complete(messages)

    starts = named(await traced(trainer, tmp_path, run), "chat_start")
    assert [start["at"] for start in starts] == [0, 0, 0]
    assert starts[1]["appended"][1:] == [trainer.reply | {"content": "changed by the agent"}]
    assert starts[2]["appended"][0]["content"] == "another question"


async def test_no_key_is_in_a_trace(trainer: FakeTrainer, tmp_path: Path) -> None:
    params = {"temperature": 1, "max_tokens": 5, "api_key": "sk-1", "extra": {"Authorization": "Bearer sk-2"}}
    await traced(trainer, tmp_path, chat_once, completion_params=params)
    content = (tmp_path / "rollout-1.jsonl").read_text()
    assert not any(secret in content for secret in ("sk-1", "sk-2", "the trainer's key"))
    assert '"max_tokens":5' in content


def test_only_names_of_secrets_are_hidden() -> None:
    fields = {"api_key": "x", "Api-Key": "x", "password": "x", "max_tokens": 1, "stop_token": "a", "key": "k"}
    hidden = [name for name, value in without_secrets(fields).items() if value == "[hidden]"]
    assert hidden == ["api_key", "Api-Key", "password"]


async def test_a_failed_chat_says_why(trainer: FakeTrainer, tmp_path: Path) -> None:
    trainer.chat_answers = [422]
    events = await traced(trainer, tmp_path, chat_once)
    [end] = named(events, "chat_end")
    assert "422" in end["error"]
    assert "reply" not in end
    [result] = named(events, "rollout_result")
    assert (result["status"], result["extra_fields"]["outcome"]) == ("ERROR", "llm_error")


async def test_an_agent_that_fails_leaves_error_and_result(trainer: FakeTrainer, tmp_path: Path) -> None:
    events = await traced(trainer, tmp_path, raising(ValueError("boom")))
    assert "boom" in named(events, "rollout_error")[0]["error"]
    assert "boom" in named(events, "rollout_result")[0]["error_message"]


async def test_each_attempt_at_delivery_is_an_event(trainer: FakeTrainer, tmp_path: Path) -> None:
    trainer.completed_answers = [503]
    settings = settings_of(client={"retry_base_delay": 0.01, "retry_max_delay": 0.01})
    app = create_app(ScriptedAgent(chat_once), settings=settings, debug_dir=str(tmp_path))
    async with client_of(app) as client:
        await client.post(INIT, json=init_body(server_url=trainer.url))
        await trainer.result("rollout-1")
        await until(lambda: len(named(events_in(tmp_path), "delivery")) == 2)
    first, second = named(events_in(tmp_path), "delivery")
    assert (first["attempt"], first["verdict"], second["attempt"], second["verdict"]) == (
        1,
        "unanswered",
        2,
        "acknowledged",
    )
    assert "503" in first["error"]


@pytest.mark.slow
async def test_many_at_once_are_all_on_disk_before_they_are_delivered(
    trainer: FakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer_module, "FLUSH_SECONDS", 3600.0)
    own = buffer_module.TraceBuffer()  # what is left in it an hour must not be left to other tests
    monkeypatch.setattr(buffer_module, "trace_buffer", lambda: own)
    ids = [f"r{number}" for number in range(30)]
    app = create_app(ScriptedAgent(use_tools), settings=settings_of(), debug_dir=str(tmp_path))
    async with client_of(app) as client:
        await asyncio.gather(*(client.post(INIT, json=init_body(one, server_url=trainer.url)) for one in ids))
        for rollout_id in ids:
            await trainer.result(rollout_id)
            assert named(events_in(tmp_path, rollout_id), "rollout_result")


async def test_a_long_conversation_grows_the_trace_by_what_it_says_and_no_more(
    trainer: FakeTrainer, tmp_path: Path
) -> None:
    async def run(ctx: RolloutContext) -> Any:
        messages = list(ctx.request.messages)
        for _ in range(50):
            messages.append((await ctx.chat(messages)).message)
            messages.append({"role": "user", "content": "x" * 4000})
        return ctx.complete(messages)

    await traced(trainer, tmp_path, run)
    assert (tmp_path / "rollout-1.jsonl").stat().st_size < 2 * 50 * 4500


async def test_without_a_folder_nothing_is_traced(trainer: FakeTrainer, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(buffer_module.TraceBuffer, "add", lambda *_: pytest.fail("something was traced"))
    async with client_of(create_app(ScriptedAgent(use_tools), settings=settings_of())) as client:
        await client.post(INIT, json=init_body(server_url=trainer.url))
        await trainer.result("rollout-1")
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - a Path is refused in async code
