"""The librarian: its tools and its reward alone, then the agent over real sockets, from the trainer's side."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, strategies as st
from support.fake_trainer import FakeTrainer
from support.live_server import LiveServer
from support.plain_http import PLAIN
from support.tool_calls import answer_to

from examples.library.agent import agent_loop
from examples.library.rewards import compute_reward
from examples.library.tools import NOTES, TOOLS
from osmosis_ai.rollout import RolloutServerSettings, RolloutSettings, Toolbox, create_app, validate_agent_loop

ROOT = Path(__file__).parents[3]
QUESTIONS = Path(__file__).parents[1] / "questions.jsonl"
ROWS = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
DEADLINE_SECONDS = 150


def call(name: str, arguments: Any, call_id: str = "call_1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def calling(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


# --- tools


async def test_search_puts_the_note_with_most_of_the_words_first() -> None:
    message = await answer_to(TOOLS, call("search", {"words": "RED iron island", "limit": 2}))

    assert message["tool_call_id"] == "call_1"
    assert json.loads(message["content"])[0] == {"id": "n03", "name": "Ostwick"}
    assert len(json.loads(message["content"])) == 2


async def test_read_gives_the_text() -> None:
    assert (await answer_to(TOOLS, call("read", {"id": "n03"})))["content"] == NOTES["n03"]["text"]


@pytest.mark.parametrize(
    ("tool_call", "problem"),
    [
        (call("read", {"id": "n99"}), "no note 'n99'"),
        (call("read", {}), "read takes the arguments id: id missing"),
        (call("read", {"id": 7}), "argument id of read must be a text"),
        (call("read", {"id": "n01", "page": 2}), "read takes the arguments id: another argument given"),
        (
            call("search", {"words": "red", "limit": 0}),
            "argument limit of search: input should be greater than or equal to 1",
        ),
        (call("burn", {}), "no such tool; there are search, read"),
        (call("read", ["n01"]), "the arguments must be a JSON object"),
        ({"id": "call_1", "function": {"name": "read", "arguments": "{"}}, "the arguments are not valid JSON"),
    ],
)
async def test_a_call_that_cannot_be_answered_is_told_to_the_model(tool_call: dict[str, Any], problem: str) -> None:
    message = await answer_to(TOOLS, tool_call)

    assert message["role"] == "tool"
    assert message["tool_call_id"] == "call_1"
    assert message["content"].startswith("Error: ")
    assert problem in message["content"]


def test_the_model_is_told_each_argument_and_its_limits() -> None:
    schema = TOOLS.schemas[0].model_dump(exclude_none=True)["function"]

    assert schema["description"].startswith("Find notes")
    assert schema["parameters"]["required"] == ["words"]
    assert schema["parameters"]["properties"]["limit"] == {
        "default": 5,
        "description": "How many notes at most",
        "maximum": 10,
        "minimum": 1,
        "type": "integer",
    }


def test_the_agent_can_be_served() -> None:
    result = validate_agent_loop(agent_loop)

    assert result.valid
    assert result.warnings == []


# --- reward


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ("Answer: Ostwick; Tern Bank", 1.0),
        ("They are two.\nanswer:  tern  bank ;OSTWICK.", 1.0),
        ("Answer: Ostwick", 2 / 3),
        ("Answer: Ostwick; Tern Bank; Pennock; Greyling", 2 / 3),
        ("Answer: Pennock", 0.0),
        ("Answer:", 0.0),
        ("Ostwick; Tern Bank", 0.0),
        ("Answer: Ostwick; Tern Bank\nAnswer: Pennock", 0.0),
    ],
)
def test_the_reward_is_how_well_the_names_fit(answer: str, reward: float) -> None:
    assert compute_reward(answer, "Ostwick; Tern Bank") == pytest.approx(reward)


@given(st.text(), st.text())
def test_any_answer_has_a_reward_between_0_and_1(answer: str, ground_truth: str) -> None:
    assert 0.0 <= compute_reward(f"Answer: {answer}", ground_truth) <= 1.0


@pytest.mark.parametrize("row", ROWS, ids=[row["user_prompt"] for row in ROWS])
def test_every_right_answer_names_notes_and_earns_1(row: dict[str, str]) -> None:
    names = {note["name"] for note in NOTES.values()}

    assert set(row["ground_truth"].split("; ")) <= names
    assert compute_reward(f"Answer: {row['ground_truth']}", row["ground_truth"]) == 1.0


# --- the agent, over sockets


@pytest.fixture
def trainer() -> Iterator[FakeTrainer]:
    with FakeTrainer() as trainer:
        yield trainer


@pytest.fixture
def server() -> Iterator[str]:
    settings = RolloutSettings(server=RolloutServerSettings(api_key=None, journal="off"))
    with LiveServer(create_app(agent_loop, settings=settings)) as server:
        yield server.url


def start(server: str, trainer: FakeTrainer, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": ROWS[0]["user_prompt"]}]
    body: dict[str, Any] = {
        "rollout_id": "one",
        "server_url": trainer.url,
        "messages": messages,
        "completion_params": {},
    }
    body.update({"metadata": {"ground_truth": "Ostwick"}, **fields})
    assert httpx.post(f"{server}/v1/rollout/init", json=body, **PLAIN).status_code == 202
    return trainer.wait_for_result("one")


def test_an_answer_ends_the_rollout_with_its_reward(server: str, trainer: FakeTrainer) -> None:
    trainer.reply = {"role": "assistant", "content": "Answer: Ostwick; Pennock"}

    result = start(server, trainer)

    assert (result["status"], result["finish_reason"]) == ("COMPLETED", "stop")
    assert result["reward"] == pytest.approx(2 / 3)


def test_without_a_right_answer_there_is_no_reward(server: str, trainer: FakeTrainer) -> None:
    result = start(server, trainer, metadata={})

    assert result["status"] == "COMPLETED"
    assert "reward" not in result


def test_the_calls_of_one_turn_run_together_and_are_answered_in_order(
    server: str, trainer: FakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    all_begun = asyncio.Event()

    async def read(id: str) -> str:  # noqa: A002 - the name that models know
        begun.append(id)
        if len(begun) == 3:
            all_begun.set()
        await all_begun.wait()
        return f"text of {id}"

    monkeypatch.setattr("examples.library.agent.TOOLS", Toolbox(read))
    trainer.reply = calling(*(call("read", {"id": note_id}, f"call_{note_id}") for note_id in ("n03", "n01", "n02")))

    result = start(server, trainer, max_turns=1)

    assert [message["content"] for message in result["final_messages"][2:]] == [
        "text of n03",
        "text of n01",
        "text of n02",
    ]
    assert result["finish_reason"] == "max_turns"
    assert result["metrics"]["num_tool_calls"] == 3


def test_the_token_limit_ends_the_rollout_after_the_turn_that_reaches_it(server: str, trainer: FakeTrainer) -> None:
    trainer.reply = calling(call("read", {"id": "n01"}))

    result = start(server, trainer, max_tokens_total=10)

    assert result["finish_reason"] == "max_tokens"
    assert result["final_messages"][-1]["role"] == "tool"
    assert result["reward"] == 0.0


def test_a_bug_in_a_tool_is_an_error_and_no_reward(
    server: str, trainer: FakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("examples.library.tools.NOTES", {"n01": {}})
    trainer.reply = calling(call("read", {"id": "n01"}))

    result = start(server, trainer)

    assert (result["status"], result["extra_fields"]["outcome"]) == ("ERROR", "tool_error")
    assert "read failed: KeyError: 'text'" in result["error_message"]
    assert "reward" not in result


def test_a_trainer_that_refuses_is_an_error_and_no_reward(server: str, trainer: FakeTrainer) -> None:
    trainer.chat_answers = [400]

    result = start(server, trainer)

    assert (result["status"], result["extra_fields"]["outcome"]) == ("ERROR", "llm_error")
    assert "reward" not in result


@pytest.mark.slow
def test_the_whole_dataset_through_osmosis_trainer(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    command = ["-m", "osmosis_ai", "trainer", "-m", "examples.library.agent:agent_loop", "-d", str(QUESTIONS)]
    command += ["--policy", "examples.library.policy:KeywordPolicy", "-o", str(results)]

    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )

    assert done.returncode == 0, done.stderr
    rewards = {line["row_index"]: line["reward"] for line in json.loads(results.read_text())["results"]}
    assert len(rewards) == len(ROWS)
    assert [row for row, reward in rewards.items() if reward < 1] == [6, 7, 8]  # where words are not meaning
    assert all(reward > 0.5 for reward in rewards.values())
