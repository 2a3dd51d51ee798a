"""Where an exception arose in the author's own code, and what slip it is."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from osmosis_ai.rollout import Toolbox
from osmosis_ai.rollout.core.alike import alike
from osmosis_ai.rollout.core.slips import hint_of, told_of
from osmosis_ai.rollout.core.where import MAX_PLACES, place_of, place_of_function, places_of, places_of_task

AUTHORS = """
import asyncio
import json

def innermost(row):
    return row["employees"]

def middle(row):
    return innermost(row)

def wrapped(row):
    try:
        middle(row)
    except KeyError as error:
        raise ValueError("no such table") from error

def decoding(text):
    return json.loads(text)

def endless(depth=0):
    return endless(depth + 1)

async def waits():
    await asyncio.sleep(60)

async def outer():
    await waits()
"""


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "agent.py").write_text(AUTHORS)
    monkeypatch.chdir(tmp_path)
    module = ModuleType("agent")
    exec(compile(AUTHORS, str(tmp_path / "agent.py"), "exec"), module.__dict__)  # noqa: S102 - the module of this test
    return module


def raised(call: Callable[[], Any]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever the agent's code raises
        call()
    return caught.value


def of_agent(error: BaseException) -> list[str]:
    return [place for place in places_of(error) if place.startswith("agent.py")]


class TestPlaces:
    def test_the_innermost_frame_is_first_relative_to_the_working_folder(self, agent: ModuleType) -> None:
        error = raised(lambda: agent.middle({}))
        assert of_agent(error) == ["agent.py:6 in innermost", "agent.py:9 in middle"]
        assert place_of(error) == "agent.py:6 in innermost"

    def test_a_file_elsewhere_is_told_by_its_name_alone(self, agent: ModuleType) -> None:
        assert places_of(raised(lambda: agent.middle({})))[-1].startswith("test_where.py:")

    def test_a_cause_comes_before_what_was_raised_from_it(self, agent: ModuleType) -> None:
        found = of_agent(raised(lambda: agent.wrapped({})))
        assert found == [
            "agent.py:6 in innermost",
            "agent.py:9 in middle",
            "agent.py:13 in wrapped",
            "agent.py:15 in wrapped",
        ]

    def test_frames_of_the_standard_library_are_left_out(self, agent: ModuleType) -> None:
        assert place_of(raised(lambda: agent.decoding("{"))) == "agent.py:18 in decoding"

    def test_they_are_bounded(self, agent: ModuleType) -> None:
        assert len(places_of(raised(agent.endless))) <= MAX_PLACES

    def test_of_a_group_its_first_error(self, agent: ModuleType) -> None:
        group = BaseExceptionGroup("some", [raised(lambda: agent.middle({})), ValueError("x")])
        assert of_agent(group)[0] == "agent.py:6 in innermost"
        assert hint_of(group) == "the first error of the group is KeyError: 'employees'"

    async def test_frames_of_the_sdk_are_left_out_around_a_tool(self) -> None:
        def fails() -> str:
            """Fail."""
            raise KeyError("employees")

        toolbox = Toolbox(fails)
        call = {"id": "1", "type": "function", "function": {"name": "fails", "arguments": "{}"}}
        with pytest.raises(Exception, match="employees") as caught:
            await toolbox.answer(_context(), [call])
        found = places_of(caught.value)
        assert "fails" in found[0]
        assert not any("toolbox.py" in place or "offload.py" in place for place in found)

    async def test_of_a_task_where_it_waits(self, agent: ModuleType) -> None:
        task = asyncio.create_task(agent.outer())
        await asyncio.sleep(0)
        assert places_of_task(task) == ["agent.py:24 in waits", "agent.py:27 in outer"]
        task.cancel()

    def test_of_a_function_its_first_line(self, agent: ModuleType) -> None:
        assert place_of_function(agent.middle) == "agent.py:8 in middle"
        assert place_of_function(3) is None

    def test_a_chain_that_leads_back_to_itself_ends(self) -> None:
        error = ValueError("a")
        error.__cause__ = KeyError("b")
        error.__cause__.__cause__ = error
        assert places_of(error) == []


def _context() -> Any:
    from osmosis_ai.rollout import OsmosisLLMClient, RolloutContext, RolloutRequest

    request = RolloutRequest(rollout_id="r", server_url="http://trainer", messages=[], completion_params={})
    return RolloutContext(request=request, tools=[], llm=OsmosisLLMClient("http://trainer", "r"))


async def _chat() -> dict[str, Any]:
    return {}


def _forgotten(use: Callable[[Any], Any]) -> BaseException:
    coroutine = _chat()
    try:
        return raised(lambda: use(coroutine))
    finally:
        coroutine.close()


class TestSlips:
    @pytest.mark.parametrize(
        "use", [lambda reply: reply.message, lambda reply: reply["message"], lambda reply: len(reply), json.dumps]
    )
    def test_a_forgotten_await(self, use: Callable[[Any], Any]) -> None:
        assert str(hint_of(_forgotten(use))).startswith("an await is missing")

    def test_an_await_too_many(self) -> None:
        async def awaits() -> None:
            await 3  # type: ignore[misc]

        assert "leave the await out" in str(hint_of(raised(lambda: asyncio.run(awaits()))))

    def test_a_run_without_its_context(self) -> None:
        class Agent:
            def run(self) -> None:
                """Takes nothing."""

        assert "async def run(self, ctx)" in str(hint_of(raised(lambda: Agent().run(1))))  # type: ignore[call-arg]

    async def test_asyncio_run_within_a_loop(self) -> None:
        coroutine = _chat()
        error = raised(lambda: asyncio.run(coroutine))
        coroutine.close()
        assert "await the coroutine" in str(hint_of(error))

    async def test_a_connection_of_another_thread(self) -> None:
        connection = sqlite3.connect(":memory:")
        with pytest.raises(sqlite3.ProgrammingError) as caught:
            await asyncio.to_thread(connection.execute, "select 1")
        assert "check_same_thread=False" in str(hint_of(caught.value))
        connection.close()

    def test_the_hint_of_a_cause_counts(self) -> None:
        error = RuntimeError("x")
        error.__cause__ = raised(lambda: json.loads("{"))
        assert "Toolbox" in str(hint_of(error))
        assert "hint" in told_of(error)

    def test_none_where_none_is_known(self) -> None:
        assert hint_of(KeyError("x")) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("row 3 failed after 1.5 s", "row 14 failed after 2.75 s"),
        ("rollout trainer-ab12-3-0 has no note n07", "rollout trainer-ab12-4-0 has no note n99"),
        ("<object at 0x7f3a12> at 12:30:01", "<object at 0x7f3a99> at 12:31:44"),
        ("id 3f2504e0-4f89-11d3-9a0c-0305e82c3301", "id 6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        ("the first line\nand more", "the first line\nor less"),
    ],
)
def test_what_differs_in_numbers_times_and_ids_is_alike(one: str, other: str) -> None:
    assert alike(one) == alike(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("KeyError: 'employees'", "KeyError: 'orders'"),
        ("busy (HTTP 503, chat)", "busy (HTTP 422, chat)"),
        ("no such table", "no such column"),
    ],
)
def test_what_differs_in_words_is_not(one: str, other: str) -> None:
    assert alike(one) != alike(other)


def test_two_statuses_keep_their_order() -> None:
    assert alike("HTTP 503, then HTTP 422") == "HTTP 503, then HTTP 422"
