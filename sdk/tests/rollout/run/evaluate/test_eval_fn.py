import asyncio
import contextvars
import threading
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from osmosis_ai import osmosis_reward, osmosis_rubric
from osmosis_ai.rollout.run.evaluate import EvalFnError, EvalFnWrapper, eval_fn, load_eval_fn, load_eval_fns
from osmosis_ai.rollout.run.evaluate.eval_fn import NoRewardError

MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "draft"},
    {"role": "assistant", "content": "#### 3"},
    {"role": "assistant", "content": None, "tool_calls": []},
    {"role": "tool", "content": "x", "tool_call_id": "1"},
]


async def score(fn: Callable[..., Any], messages: list[dict[str, Any]] = MESSAGES, **metadata: Any) -> float:
    return await EvalFnWrapper(fn, "fn")(messages, "3", metadata)


class TestWhatAFunctionIsGiven:
    async def test_solution_str_is_the_last_answer_that_has_a_content(self) -> None:
        seen: dict[str, Any] = {}

        def simple(solution_str: str, ground_truth: str, extra_info: dict[str, Any]) -> float:
            seen.update(solution_str=solution_str, ground_truth=ground_truth, extra_info=extra_info)
            return 1

        assert await score(simple, level=2) == 1.0
        assert seen == {"solution_str": "#### 3", "ground_truth": "3", "extra_info": {"level": 2}}

    @pytest.mark.parametrize(
        ("content", "text"),
        [
            ([{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}], "ab"),
            ("", ""),
            (12, "12"),
        ],
    )
    async def test_a_content_of_parts_is_their_text(self, content: Any, text: str) -> None:
        async def simple(solution_str: str) -> bool:
            return solution_str == text

        assert await score(simple, [{"role": "assistant", "content": content}]) == 1.0

    async def test_without_an_answer_it_is_empty(self) -> None:
        assert await score(lambda solution_str: solution_str == "", [{"role": "user", "content": "q"}]) == 1.0

    async def test_messages_are_the_conversation_and_metadata_the_row(self) -> None:
        async def full(messages: list[Any], ground_truth: str, metadata: dict[str, Any]) -> float:
            return len(messages) if (ground_truth, metadata) == ("3", {"level": 2}) else 0

        assert await score(full, level=2) == len(MESSAGES)

    async def test_it_is_passed_only_what_it_takes(self) -> None:
        assert await score(lambda messages: len(messages)) == len(MESSAGES)
        assert await score(lambda solution_str, weight=2.0: weight) == 2.0
        assert await score(lambda solution_str, **rest: len(rest)) == 2.0
        assert await score(lambda messages, extra_info: extra_info["level"], level=7) == 7.0

    async def test_what_it_does_to_its_arguments_stays_with_it(self) -> None:
        def spoil(messages: list[Any], metadata: dict[str, Any]) -> int:
            messages[0]["content"] = "spoiled"
            messages.clear()
            metadata["nested"].append(1)
            return len(metadata["nested"])

        nested: list[int] = []
        wrapper = EvalFnWrapper(spoil, "spoil")
        assert [await wrapper(MESSAGES, "3", {"nested": nested}) for _ in range(2)] == [1.0, 1.0]
        assert MESSAGES[0]["content"] == "q"


class TestSignatures:
    @pytest.mark.parametrize(("first", "mode"), [("solution_str", "simple"), ("messages", "full")])
    def test_the_first_parameter_decides_the_mode(self, first: str, mode: str) -> None:
        fn = eval(f"lambda {first}, **rest: 1.0")  # noqa: S307 - a parameter's name cannot come from a variable
        wrapper = EvalFnWrapper(fn, "fn")
        assert (wrapper._mode, f"{wrapper._mode}", wrapper.fn, wrapper.name) == (mode, mode, fn, "fn")

    @pytest.mark.parametrize(
        ("fn", "sentence"),
        [
            (lambda: 1.0, "has no parameters"),
            (lambda answer: 1.0, "is 'answer'"),
            (lambda solution_str, weight: 1.0, "needs the argument 'weight'"),
            (lambda messages, ground_truth, *, other: 1.0, "needs the argument 'other'"),
            (lambda solution_str, /, ground_truth: 1.0, "positional-only"),
            (min, "signature of eval function fn cannot be read"),
        ],
    )
    def test_one_that_cannot_be_called_is_refused_before_it_is(self, fn: Callable[..., Any], sentence: str) -> None:
        with pytest.raises(EvalFnError, match=sentence):
            EvalFnWrapper(fn, "fn")


class CallableClass:
    async def __call__(self, solution_str: str) -> float:
        return 0.5


class TestCalls:
    @pytest.mark.parametrize(
        "fn",
        [
            CallableClass(),
            partial(lambda solution_str, score: score, score=0.5),
            lambda solution_str: CallableClass()(solution_str),
        ],
    )
    async def test_any_callable_will_do_and_what_can_be_awaited_is(self, fn: Callable[..., Any]) -> None:
        assert await score(fn) == 0.5

    async def test_reward_functions_of_the_sdk_are_eval_functions(self) -> None:
        @osmosis_reward
        def reward(solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> float:
            return float(solution_str.endswith(ground_truth))

        @osmosis_reward
        async def later(solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> float:
            return float(solution_str.endswith(ground_truth))

        @osmosis_rubric
        def rubric(solution_str: str, ground_truth: str | None, extra_info: dict[str, Any]) -> float:
            return 0.25

        assert [await score(fn) for fn in (reward, later, rubric)] == [1.0, 1.0, 0.25]

    async def test_a_plain_function_does_not_hold_up_the_event_loop_and_keeps_the_context(self) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
        variable.set("set")
        may_end = threading.Event()
        started = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(solution_str: str) -> bool:
            loop.call_soon_threadsafe(started.set)
            return may_end.wait(60) and variable.get() == "set"

        task = asyncio.create_task(score(slow))
        await started.wait()
        may_end.set()
        assert await task == 1.0

    @pytest.mark.parametrize("is_async", [True, False])
    async def test_one_that_hangs_is_given_up(self, is_async: bool) -> None:
        may_end = threading.Event()

        async def hang_async(solution_str: str) -> float:
            await asyncio.Event().wait()
            return 0.0

        def hang(solution_str: str) -> bool:
            return may_end.wait(60)

        wrapper = EvalFnWrapper(hang_async if is_async else hang, "hang", time_limit_seconds=0.05)
        with pytest.raises(EvalFnError, match=r"hang took longer than 0.05 s"):
            await wrapper(MESSAGES, "3", {})
        may_end.set()

    @pytest.mark.parametrize("error", [ValueError("own"), TimeoutError("own"), StopIteration(), SystemExit(3)])
    async def test_what_it_raises_is_raised_as_an_exception(self, error: BaseException) -> None:
        def fail(solution_str: str) -> float:
            raise error

        with pytest.raises(Exception, match=r"own|StopIteration|SystemExit"):
            await score(fail)


class TestScores:
    @pytest.mark.parametrize(("result", "expected"), [(True, 1.0), (2, 2.0), (0.5, 0.5), (Decimal("0.25"), 0.25)])
    async def test_what_is_a_number_is_a_score(self, result: Any, expected: float) -> None:
        found = await score(lambda solution_str: result)
        assert (found, type(found)) == (expected, float)

    @pytest.mark.parametrize("result", ["1.0", [1.0], {}, float("nan"), float("inf"), 10**400, 1j])
    async def test_anything_else_is_none(self, result: Any) -> None:
        with pytest.raises(EvalFnError, match=r"must return a (finite )?number"):
            await score(lambda solution_str: result)

    async def test_none_is_no_reward(self) -> None:
        with pytest.raises(NoRewardError):
            await score(lambda solution_str: None)


class TestLoading:
    @pytest.fixture
    def scores(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        """The name of a module in the working directory."""
        name = f"scores_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text("def good(solution_str): return 1.0\nnumber = 3\n")
        (tmp_path / f"{name}_broken.py").write_text("1 / 0\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        return name

    def test_functions_are_named_by_their_paths(self, scores: str) -> None:
        [wrapper] = load_eval_fns([f"{scores}:good"])
        assert (wrapper.name, wrapper._mode, wrapper.is_async) == (f"{scores}:good", "simple", False)

    @pytest.mark.parametrize("path", ["{}", "{}:", "{}:gone", "{}:number", "gone_{}:good", "{}_broken:good"])
    def test_what_cannot_be_loaded_is_one_sentence(self, scores: str, path: str) -> None:
        with pytest.raises(EvalFnError) as raised:
            load_eval_fn(path.format(scores))
        assert "\n" not in str(raised.value)
        assert path.format(scores) in str(raised.value)

    def test_a_path_may_be_named_once(self, scores: str) -> None:
        with pytest.raises(EvalFnError, match="Duplicate eval function path"):
            load_eval_fns([f"{scores}:good", f"{scores}:good"])

    def test_each_path_goes_through_load_eval_fn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(eval_fn, "load_eval_fn", lambda path: lambda solution_str: 1.0)
        assert [wrapper.name for wrapper in load_eval_fns(["a:b", "c:d"])] == ["a:b", "c:d"]
