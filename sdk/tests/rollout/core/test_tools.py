"""Tool calls: reading, running and answering them."""

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout import (
    OsmosisRolloutError,
    ToolArgumentError,
    ToolExecutionError,
    create_tool_error_result,
    create_tool_result,
    execute_tool_calls,
    get_tool_call_info,
    parse_tool_arguments,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def call(call_id: Any = "call_1", name: Any = "add", arguments: Any = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


class TestParsingArguments:
    def test_a_dict_is_passed_on(self) -> None:
        arguments = {"a": 1}
        assert parse_tool_arguments(arguments) is arguments

    @pytest.mark.parametrize(("text", "value"), [('{"a": 5}', {"a": 5}), ("{}", {}), (' {"a":\n[1]} ', {"a": [1]})])
    def test_json_text_is_decoded(self, text: str, value: dict[str, Any]) -> None:
        assert parse_tool_arguments(text) == value

    @pytest.mark.parametrize(
        "text",
        ["", "  ", "{", "{'a': 1}", "add(1)", '{"a": 1} extra', '{"a": ' + "9" * 5000 + "}", "[" * 200_000],
        ids=lambda text: repr(text[:12]),
    )
    def test_other_text_is_invalid_json(self, text: str) -> None:
        with pytest.raises(ToolArgumentError, match=r"^Invalid JSON arguments: .") as caught:
            parse_tool_arguments(text)
        assert len(str(caught.value)) < 200

    @pytest.mark.parametrize(
        ("text", "kind"), [("[1]", "list"), ("5", "int"), ('"{}"', "str"), ("null", "NoneType"), ("true", "bool")]
    )
    def test_json_of_another_type_is_named(self, text: str, kind: str) -> None:
        with pytest.raises(ToolArgumentError, match=f"^Expected dict from JSON, got {kind}$"):
            parse_tool_arguments(text)

    @pytest.mark.parametrize("arguments", [None, 5, [1], b"{}"], ids=repr)
    def test_arguments_of_another_type_are_named(self, arguments: Any) -> None:
        kind = type(arguments).__name__
        with pytest.raises(ToolArgumentError, match=f"^Expected str or dict arguments, got {kind}$"):
            parse_tool_arguments(arguments)

    @given(st.text() | json_values.map(json.dumps) | st.text('[]{}":,0123456789eE.-+ntfalsu '))
    def test_any_text_is_a_dict_or_a_tool_argument_error(self, text: str) -> None:
        try:
            outcome: Any = parse_tool_arguments(text)
        except ToolArgumentError as error:
            outcome = str(error)
        assert isinstance(outcome, dict) or outcome.startswith(("Invalid JSON arguments: ", "Expected dict from JSON"))


class TestReadingACall:
    def test_id_name_and_arguments(self) -> None:
        assert get_tool_call_info(call(arguments='{"a": 5}')) == ("call_1", "add", {"a": 5})

    @pytest.mark.parametrize(
        "tool_call",
        [
            {},
            {"id": None, "function": None},
            {"function": {}},
            {"id": None, "function": {"name": None, "arguments": None}},
            call(None, None, ""),
            call(None, None, " \n"),
            call(None, None, {}),
        ],
        ids=str,
    )
    def test_what_is_absent_null_or_blank_has_a_default(self, tool_call: dict[str, Any]) -> None:
        assert get_tool_call_info(tool_call) == ("unknown", "", {})

    def test_bad_arguments_say_whose_they_are(self) -> None:
        with pytest.raises(ToolArgumentError, match=r"^Expected dict from JSON, got list$") as caught:
            get_tool_call_info(call("call_9", "divide", "[1]"))
        assert (caught.value.tool_call_id, caught.value.tool_name) == ("call_9", "divide")
        assert isinstance(caught.value.__cause__, ToolArgumentError)

    @pytest.mark.parametrize(
        "tool_call",
        [None, [], "add", {"function": "add"}, {"function": []}, call(call_id=5), call(name={}), call(arguments=0)],
        ids=str,
    )
    def test_another_shape_is_a_tool_argument_error(self, tool_call: Any) -> None:
        with pytest.raises(ToolArgumentError, match=r"^Expected "):
            get_tool_call_info(tool_call)

    @given(
        json_values
        | st.fixed_dictionaries(
            {},
            optional={
                "id": json_values,
                "function": json_values
                | st.fixed_dictionaries({}, optional={"name": json_values, "arguments": json_values}),
            },
        )
    )
    def test_any_json_is_a_call_or_a_tool_argument_error(self, tool_call: Any) -> None:
        try:
            call_id, name, arguments = get_tool_call_info(tool_call)
        except ToolArgumentError:
            return
        assert (type(call_id), type(name), type(arguments)) == (str, str, dict)


async def echo(tool_call: dict[str, Any]) -> dict[str, str]:
    return create_tool_result(tool_call["id"], "done")


def contents(results: list[dict[str, str]]) -> list[str]:
    return [result["content"] for result in results]


class Meeting:
    """Tools that wait for each other: each ends only when `size` of them run at once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._arrived = 0
        self._complete = asyncio.Event()

    async def attend(self, tool_call: dict[str, Any]) -> dict[str, str]:
        self._arrived += 1
        if self._arrived == self._size:
            self._complete.set()
        await self._complete.wait()
        return create_tool_result(tool_call["id"], "met")


class Siblings:
    """Tools that never end by themselves, and one, `fails`, that fails once `others` of them run."""

    def __init__(self, others: int, error: Exception) -> None:
        self.running = asyncio.Event()
        self.ended: list[str] = []
        self._missing = others
        self._error = error

    async def run(self, tool_call: dict[str, Any]) -> dict[str, str]:
        if tool_call["id"] == "fails":
            await self.running.wait()
            raise self._error
        self._missing -= 1
        if self._missing == 0:
            self.running.set()
        try:
            return await asyncio.Future[dict[str, str]]()
        finally:
            await asyncio.sleep(0)
            self.ended.append(tool_call["id"])


class TestExecuting:
    @pytest.mark.parametrize("nothing", [[], None])
    async def test_no_calls_have_no_results(self, nothing: list[dict[str, Any]] | None) -> None:
        assert await execute_tool_calls(nothing, echo) == []

    async def test_all_calls_run_at_once(self) -> None:
        results = await execute_tool_calls([call(str(n)) for n in range(50)], Meeting(50).attend)
        assert contents(results) == ["met"] * 50

    async def test_results_come_in_the_order_of_the_calls(self) -> None:
        turns = [asyncio.Event() for _ in range(3)]
        turns[2].set()

        async def backwards(tool_call: dict[str, Any]) -> dict[str, str]:
            number = int(tool_call["id"])
            await turns[number].wait()
            turns[number - 1].set()
            return await echo(tool_call)

        results = await execute_tool_calls([call("0"), call("1"), call("2")], backwards)
        assert [result["tool_call_id"] for result in results] == ["0", "1", "2"]

    async def test_a_failure_propagates_after_the_siblings_have_ended(self) -> None:
        error = ToolExecutionError("out of order", "fails")
        error.__cause__ = ValueError("why")
        siblings = Siblings(2, error)
        with pytest.raises(ToolExecutionError) as caught:
            await execute_tool_calls([call("a"), call("fails"), call("b")], siblings.run)
        assert caught.value is error
        assert isinstance(caught.value.__cause__, ValueError)
        assert sorted(siblings.ended) == ["a", "b"]

    async def test_of_several_failures_the_first_in_time_propagates(self) -> None:
        async def fail(tool_call: dict[str, Any]) -> dict[str, str]:
            for _ in range(int(tool_call["id"])):
                await asyncio.sleep(0)
            raise ToolExecutionError(tool_call["id"])

        with pytest.raises(ToolExecutionError, match=r"^0$"):
            await execute_tool_calls([call("2"), call("0"), call("1")], fail)

    async def test_cancelling_it_ends_every_call(self) -> None:
        siblings = Siblings(2, RuntimeError("not part of this turn"))
        running = asyncio.create_task(execute_tool_calls([call("a"), call("b")], siblings.run))
        await siblings.running.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert sorted(siblings.ended) == ["a", "b"]

    @pytest.mark.parametrize("errors_as_results", [False, True])
    async def test_a_synchronous_executor_is_named(self, errors_as_results: bool) -> None:
        def add(tool_call: dict[str, Any]) -> Any:
            return create_tool_result(tool_call["id"], "8")

        with pytest.raises(TypeError, match="must be async, but add returned dict; declare it with 'async def'"):
            await execute_tool_calls([call()], add, errors_as_results=errors_as_results)

    async def test_any_callable_that_returns_an_awaitable_will_do(self) -> None:
        def start(tool_call: dict[str, Any]) -> Awaitable[dict[str, str]]:
            return asyncio.ensure_future(echo(tool_call))

        assert contents(await execute_tool_calls([call()], start)) == ["done"]

    @pytest.mark.parametrize("limit", [1, 2, 5])
    async def test_no_more_calls_run_at_once_than_the_limit(self, limit: int) -> None:
        running, most = 0, 0

        async def count(tool_call: dict[str, Any]) -> dict[str, str]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            for _ in range(3):
                await asyncio.sleep(0)
            running -= 1
            return await echo(tool_call)

        results = await execute_tool_calls([call(str(n)) for n in range(10)], count, max_concurrency=limit)
        assert [result["tool_call_id"] for result in results] == [str(n) for n in range(10)]
        assert most == limit

    @pytest.mark.parametrize(
        "limits",
        [
            {"max_concurrency": 0},
            {"max_concurrency": -1},
            {"timeout_seconds": 0},
            {"timeout_seconds": -1.0},
            {"timeout_seconds": math.nan},
            {"timeout_seconds": math.inf},
        ],
        ids=str,
    )
    async def test_a_limit_must_be_positive(self, limits: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(limits))):
            await execute_tool_calls([], echo, **limits)

    async def test_a_call_that_takes_too_long_is_cancelled_and_named(self) -> None:
        async def hang(tool_call: dict[str, Any]) -> dict[str, str]:
            await asyncio.Event().wait()
            return await echo(tool_call)

        with pytest.raises(ToolExecutionError, match=r"took longer than 0\.01 seconds") as caught:
            await execute_tool_calls([call("call_9", "hang")], hang, timeout_seconds=0.01)
        assert (caught.value.tool_call_id, caught.value.tool_name) == ("call_9", "hang")

    async def test_a_timeout_of_the_tool_itself_stays_what_it_is(self) -> None:
        async def fail(tool_call: dict[str, Any]) -> dict[str, str]:
            raise TimeoutError("the database did not answer")

        with pytest.raises(TimeoutError, match="the database did not answer"):
            await execute_tool_calls([call()], fail, timeout_seconds=30)

    async def test_the_wait_for_a_slot_is_not_counted(self) -> None:
        async def take_half_of_it(tool_call: dict[str, Any]) -> dict[str, str]:
            await asyncio.sleep(0.2)
            return await echo(tool_call)

        calls = [call(str(n)) for n in range(4)]
        results = await execute_tool_calls(calls, take_half_of_it, max_concurrency=1, timeout_seconds=0.5)
        assert contents(results) == ["done"] * 4

    @pytest.mark.parametrize(
        ("raised", "message"),
        [(asyncio.CancelledError(), "cancelled from within"), (SystemExit(1), "tried to exit the process")],
        ids=["cancelled", "exit"],
    )
    async def test_a_tool_that_would_end_the_rollout_or_the_server_only_fails(
        self, raised: BaseException, message: str
    ) -> None:
        with pytest.raises(ToolExecutionError, match=message) as caught:
            await execute_tool_calls([call("call_9")], raising(raised))
        assert caught.value.tool_call_id == "call_9"


def raising(error: BaseException) -> Callable[[dict[str, Any]], Awaitable[dict[str, str]]]:
    async def executor(tool_call: dict[str, Any]) -> dict[str, str]:
        raise error

    return executor


class TestErrorsAsResults:
    async def test_the_other_calls_still_answer(self) -> None:
        async def fails_on_b(tool_call: dict[str, Any]) -> dict[str, str]:
            if tool_call["id"] == "b":
                raise ToolExecutionError("no such tool")
            return await echo(tool_call)

        results = await execute_tool_calls([call("a"), call("b"), call("c")], fails_on_b, errors_as_results=True)
        assert contents(results) == ["done", "Error: no such tool", "done"]
        assert [result["tool_call_id"] for result in results] == ["a", "b", "c"]

    @pytest.mark.parametrize(
        ("error", "content"),
        [
            (ZeroDivisionError("division by zero"), "Error: ZeroDivisionError: division by zero"),
            (KeyError("a"), "Error: KeyError: 'a'"),
            (RuntimeError(), "Error: RuntimeError"),
            (ToolArgumentError("Invalid JSON arguments: here"), "Error: Invalid JSON arguments: here"),
            (OsmosisRolloutError("elsewhere"), "Error: OsmosisRolloutError: elsewhere"),
            (SystemExit(1), "Error: The tool tried to exit the process"),
        ],
        ids=lambda value: type(value).__name__,
    )
    async def test_the_model_reads_what_failed(self, error: BaseException, content: str) -> None:
        assert contents(await execute_tool_calls([call()], raising(error), errors_as_results=True)) == [content]

    async def test_a_timeout_is_a_result_too(self) -> None:
        async def hang(tool_call: dict[str, Any]) -> dict[str, str]:
            await asyncio.Event().wait()
            return await echo(tool_call)

        results = await execute_tool_calls([call()], hang, timeout_seconds=0.01, errors_as_results=True)
        assert contents(results) == ["Error: The tool took longer than 0.01 seconds"]

    async def test_a_long_message_is_cut(self) -> None:
        results = await execute_tool_calls([call()], raising(ValueError("x" * 10_000_000)), errors_as_results=True)
        assert len(results[0]["content"]) < 3000

    @pytest.mark.parametrize("tool_call", [None, "add", {}, {"id": None}, {"id": 5, "function": "add"}], ids=str)
    async def test_a_malformed_call_gets_an_answer(self, tool_call: Any) -> None:
        async def read(tool_call: dict[str, Any]) -> dict[str, str]:
            raise ToolArgumentError(f"cannot read {type(tool_call).__name__}")

        results = await execute_tool_calls([tool_call], read, errors_as_results=True)
        assert results == [create_tool_error_result("unknown", f"cannot read {type(tool_call).__name__}")]

    async def test_the_log_names_the_call_and_keeps_the_details_for_debugging(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, logger="osmosis_ai.rollout.core.tools"):
            await execute_tool_calls([call("id\n1")], raising(ValueError("secret")), errors_as_results=True)
        assert caplog.messages == [r"Tool call 'id\n1' of 'add' failed with ValueError; the model gets the error"]
        assert "secret" not in caplog.text
        with caplog.at_level(logging.DEBUG, logger="osmosis_ai.rollout.core.tools"):
            await execute_tool_calls([call()], raising(ValueError("details")), errors_as_results=True)
        assert "details" in caplog.text

    async def test_cancelling_it_is_not_turned_into_a_result(self) -> None:
        started = asyncio.Event()

        async def hang(tool_call: dict[str, Any]) -> dict[str, str]:
            started.set()
            await asyncio.Event().wait()
            return await echo(tool_call)

        running = asyncio.create_task(execute_tool_calls([call()], hang, errors_as_results=True))
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
