"""Tools are functions: their context, state and options, and how the calls of a turn run."""

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from support.tool_calls import TOOLS, a_context, add, content_of, run, tool_call

from osmosis_ai.rollout import RolloutContext, Toolbox, ToolExecutionError, tool
from osmosis_ai.rollout.core.watch import CURRENT_WATCH, RolloutWatch, ToolOutcome


class Condition(BaseModel):
    """A result that is no text."""

    column: str
    value: Decimal
    op: str = "="


@dataclass
class Session:
    """What a rollout keeps."""

    rows: list[str]


def test_the_context_and_the_state_are_filled_in_and_not_shown() -> None:
    def remember(row: str, ctx: RolloutContext, session: Session | None) -> str:
        """Remember."""
        assert session is not None
        session.rows.append(row)
        return f"{ctx.request.rollout_id}: {session.rows}"

    tools = Toolbox(remember, state=Session)
    assert list(tools.schemas[0].function.parameters.properties) == ["row"]
    session = Session([])
    assert run("remember", {"row": "a"}, tools, session) == "rollout-1: ['a']"
    assert run("remember", {"row": "b"}, tools, session) == "rollout-1: ['a', 'b']"
    assert run("remember", {"row": "c", "session": {"rows": []}}, tools, session) == (
        "Error: remember takes the arguments row: another argument given"
    )


async def test_a_forgotten_state_is_the_agents_mistake() -> None:
    def remember(row: str, session: Session) -> None:
        """Remember."""

    with pytest.raises(ToolExecutionError, match=r"wants a Session: write answer\(ctx, tool_calls, state\)"):
        await content_of(Toolbox(remember, state=Session), "remember", {"row": "a"})


async def test_a_state_that_the_toolbox_does_not_know_is_refused_before_the_model_fills_it_in() -> None:
    def remember(row: str, session: Session) -> None:
        """Remember: a dataclass may also be an argument."""

    for tools in (Toolbox(remember), Toolbox(add, state=Shop)):
        with pytest.raises(TypeError, match=r"takes a Session .*: write Toolbox\(..., state=Session\)"):
            await tools.answer(a_context(), [], Session([]))


class Shop:
    def __init__(self, name: str) -> None:
        self.name = name

    def greet(self, who: str) -> str:
        """Greet somebody."""
        return f"{self.name} greets {who}"

    async def __call__(self, who: str) -> str:
        """Call somebody."""
        return f"{self.name} calls {who}"


def test_methods_partials_and_objects_can_be_tools() -> None:
    shop = Shop("Ada")
    greet_loudly = tool(name="shout")(functools.partial(add, b=Decimal(1)))
    tools = Toolbox(shop.greet, greet_loudly, tool(name="phone")(shop))
    assert [schema.function.name for schema in tools.schemas] == ["greet", "shout", "phone"]
    assert run("greet", {"who": "Ben"}, tools) == "Ada greets Ben"
    assert run("shout", {"a": 1}, tools) == "2"
    assert run("phone", {"who": "Ben"}, tools) == "Ada calls Ben"


def test_a_decorated_function_keeps_its_signature() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @logged
    async def double(number: int) -> int:
        """Double."""
        return 2 * number

    assert run("double", {"number": 4}, Toolbox(double)) == "8"


def test_tool_gives_a_function_options_and_leaves_it_a_function() -> None:
    @tool(name="sum", description="Adds up.")
    def total(numbers: list[int]) -> int:
        """For the people who read the code."""
        return sum(numbers)

    @tool
    def plain() -> str:
        """Say nothing."""
        return ""

    [first, second] = Toolbox(total, plain).schemas
    assert (first.function.name, first.function.description) == ("sum", "Adds up.")
    assert second.function.name == "plain"
    assert total([1, 2]) == 3


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_out_is_a_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="timeout_seconds must be a positive number of seconds"):
        tool(timeout_seconds=seconds)


# How calls run


async def test_calls_of_one_turn_run_together_and_answer_in_order() -> None:
    everybody_is_here = threading.Barrier(3, timeout=60)

    def meet(name: Annotated[str, "Who comes"]) -> str:
        """Return when three have come."""
        everybody_is_here.wait()
        return name

    ctx = a_context()
    calls = [tool_call("meet", {"name": name}, name) for name in ("Ada", "Ben", "Cleo")]
    answers = await Toolbox(meet).answer(ctx, calls)
    assert [answer["content"] for answer in answers] == ["Ada", "Ben", "Cleo"]
    assert [answer["tool_call_id"] for answer in answers] == ["Ada", "Ben", "Cleo"]


@pytest.mark.parametrize("nothing", [None, []])
async def test_no_calls_get_no_answers(nothing: Any) -> None:
    assert await TOOLS.answer(a_context(), nothing) == []


async def test_at_most_max_concurrency_calls_run_at_once() -> None:
    running, most = 0, 0

    async def count() -> None:
        """Count."""
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    calls = [tool_call("count", "{}", str(number)) for number in range(9)]
    assert len(await Toolbox(count, max_concurrency=2).answer(a_context(), calls)) == 9
    assert most == 2
    with pytest.raises(ValueError, match="max_concurrency must be at least 1, got 0"):
        Toolbox(count, max_concurrency=0)


async def test_a_time_out_names_the_tool_and_its_arguments_and_holds_up_nobody() -> None:
    released = threading.Event()

    @tool(timeout_seconds=0.05)
    def hang(query: str, limit: Decimal = Decimal(1)) -> None:
        """Hang."""
        released.wait(60)

    @tool(timeout_seconds=0.05)
    async def sleep(text: str) -> None:
        """Sleep."""
        await asyncio.sleep(30)

    calls = [
        tool_call("hang", '{"query": "SELECT 1", "limit": 1e3999}'),
        tool_call("sleep", {"text": "x" * 10_000}),
        tool_call("add", {"a": 1, "b": 2}),
    ]
    started = time.monotonic()
    try:
        first, second, third = await Toolbox(hang, sleep, add).answer(a_context(), calls)
    finally:
        released.set()
    assert time.monotonic() - started < 25  # and not 30
    assert first["content"] == (
        'Error: hang took longer than 0.05 seconds with the arguments {"query": "SELECT 1", "limit": 1e3999}'
    )
    assert second["content"].startswith('Error: sleep took longer than 0.05 seconds with the arguments {"text": "xxx')
    assert second["content"].endswith("...")
    assert len(second["content"]) < 700
    assert third["content"] == "3"


async def test_what_a_tool_tells_the_model_is_a_message() -> None:
    def look_up(key: str) -> str:
        """Look up."""
        raise ToolExecutionError(f"there is no {key}")

    assert await content_of(Toolbox(look_up), "look_up", {"key": "x"}) == "Error: there is no x"


async def test_a_fault_of_the_tool_itself_is_no_message_for_the_model() -> None:
    def look_up() -> str:
        """Look something up."""
        raise ConnectionError("database is down")

    with pytest.raises(ToolExecutionError, match="look_up failed: database is down") as raised:
        await content_of(Toolbox(look_up), "look_up", {})
    assert (raised.value.tool_name, raised.value.tool_call_id) == ("look_up", "call_1")
    assert isinstance(raised.value.__cause__, ConnectionError)


async def test_a_time_out_of_the_tools_own_is_a_fault() -> None:
    @tool(timeout_seconds=30)
    async def look_up() -> str:
        """Look something up."""
        raise TimeoutError("database is slow")

    with pytest.raises(ToolExecutionError, match="look_up failed: database is slow"):
        await content_of(Toolbox(look_up), "look_up", {})


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()])
async def test_a_tool_can_neither_end_the_process_nor_cancel_the_rollout(error: BaseException) -> None:
    async def leave() -> None:
        """Leave."""
        raise error

    def leave_thread() -> None:
        """Leave."""
        raise error

    for tools in (Toolbox(leave), Toolbox(tool(name="leave")(leave_thread))):
        with pytest.raises(ToolExecutionError) as raised:
            await content_of(tools, "leave", {})
        assert raised.value.tool_name == "leave"


async def test_a_fault_ends_the_calls_beside_it() -> None:
    ended = asyncio.Event()

    async def wait() -> None:
        """Wait."""
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    async def fail() -> None:
        """Fail."""
        raise ValueError("broken")

    with pytest.raises(ToolExecutionError, match="fail failed: broken"):
        await Toolbox(wait, fail).answer(a_context(), [tool_call("wait", "{}"), tool_call("fail", "{}")])
    assert ended.is_set()


async def test_calls_are_counted_and_timed() -> None:
    async def nap() -> None:
        """Nap."""
        await asyncio.sleep(0.02)

    ctx = a_context()
    await Toolbox(nap).answer(ctx, [tool_call("nap", "{}"), tool_call("nope", "{}"), None])
    metrics = ctx.metrics_so_far()
    assert metrics is not None
    assert metrics.num_tool_calls == 3
    assert metrics.tool_latency_ms >= 20


class Watch(RolloutWatch):
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, ToolOutcome]] = []

    def tool_begins(self, name: str, call_id: str) -> Any:
        return name, call_id

    def tool_ends(self, tool: Any, outcome: ToolOutcome) -> None:
        self.seen.append((*tool, outcome))


async def test_a_watch_is_told_how_each_call_ended() -> None:
    @tool(timeout_seconds=0.01)
    async def hang() -> None:
        """Hang."""
        await asyncio.sleep(30)

    watch = Watch()
    CURRENT_WATCH.set(watch)
    calls = [tool_call("add", {"a": 1, "b": 2}, "a"), tool_call("add", "{", "b"), tool_call("hang", "{}", "c"), None]
    await Toolbox(add, hang).answer(a_context(), calls)
    assert sorted(watch.seen) == [
        ("", "unknown", ToolOutcome.ERROR),
        ("add", "a", ToolOutcome.OK),
        ("add", "b", ToolOutcome.ERROR),
        ("hang", "c", ToolOutcome.TIMEOUT),
    ]


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("as it is", "as it is"),
        (Decimal("1.500"), "1.5"),
        (Decimal("1E+3"), "1000"),
        (Decimal("-0.0"), "0"),
        ({"a": [1, None]}, '{"a": [1, null]}'),
        (None, "null"),
        (Condition(column="a", value=Decimal(1)), '{"column": "a", "value": "1", "op": "="}'),
    ],
)
async def test_a_result_is_written_as_text(result: Any, text: str) -> None:
    def give() -> Any:
        """Give."""
        return result

    assert await content_of(Toolbox(give), "give", {}) == text


async def test_a_result_with_too_many_digits_is_an_overflow() -> None:
    def give() -> Decimal:
        """Give."""
        return Decimal("1E+5000")

    assert await content_of(Toolbox(give), "give", {}) == "Error: overflow: a number has more than 4,000 digits"
