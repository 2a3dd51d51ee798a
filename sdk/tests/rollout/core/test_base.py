"""What an agent author writes against: results, the context of a rollout, and the agent loop."""

import dataclasses
import json
import logging
import os
from abc import abstractmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.agent_context import METRICS, REPLY, REQUEST, TOOL, Policy, context

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext, RolloutResult
from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema, RolloutMetrics, RolloutRequest

Message = dict[str, Any]


class TestResult:
    def test_it_is_a_plain_mutable_dataclass_with_the_documented_fields_first(self) -> None:
        messages = [{"role": "user"}]
        result = RolloutResult("COMPLETED", messages, "stop", None, METRICS, 0.5)
        names = [field.name for field in dataclasses.fields(result)]
        assert names[:6] == ["status", "final_messages", "finish_reason", "error_message", "metrics", "reward"]
        assert result.final_messages is messages
        result.reward = 1.0
        assert result == RolloutResult("COMPLETED", messages, "stop", metrics=METRICS, reward=1.0)

    def test_all_after_the_finish_reason_is_optional_and_nothing_is_checked(self) -> None:
        result = RolloutResult(status="WHATEVER", final_messages=[], finish_reason="")
        assert (result.error_message, result.metrics, result.reward, result.extra_fields) == (None, None, None, {})
        assert result.extra_fields is not RolloutResult("", [], "").extra_fields


class TestChat:
    async def test_list_and_arguments_go_to_the_policy_untouched_and_its_reply_comes_back(self) -> None:
        policy = Policy()
        messages: list[Message] = [{"role": "user", "content": "2 + 2?"}]
        assert await context(policy).chat(messages, temperature=0.1, seed=None, tools=[]) is REPLY
        (((sent,), arguments),) = policy.calls
        assert sent is messages
        assert arguments == {"temperature": 0.1, "seed": None, "tools": []}

    async def test_the_requests_sampling_settings_are_not_added_and_one_warning_says_so(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        policy = Policy(REPLY, REPLY)
        ctx = context(policy)
        messages = list(REQUEST.messages)
        await ctx.chat(messages)
        messages.append(REPLY.message)
        await ctx.chat(messages)
        assert [arguments for _, arguments in policy.calls] == [{}, {}]
        assert ["completion_params" in record.getMessage() for record in caplog.records] == [True]
        assert ctx.sampling_ignored == tuple(REQUEST.completion_params)

    async def test_one_that_is_replaced_or_left_out_later_is_noticed_too(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked = {"temperature": 0.8, "top_k": 5, "seed": None}
        ctx = context(Policy(REPLY, REPLY, REPLY))
        ctx.request = REQUEST.model_copy(update={"completion_params": asked})
        messages = list(REQUEST.messages)
        await ctx.chat(messages, **ctx.request.completion_params, stop="x")
        assert not ctx.sampling_ignored
        await ctx.chat([*messages, REPLY.message], **{**ctx.request.completion_params, "temperature": 0})
        await ctx.chat([*messages, REPLY.message, REPLY.message], temperature=0.8)
        assert ctx.sampling_ignored == ("temperature",)
        [record] = caplog.records
        assert "a chat call ignored the request's temperature: " in record.getMessage()

    async def test_an_agent_that_passes_them_is_not_warned(self, caplog: pytest.LogCaptureFixture) -> None:
        ctx = context()
        await ctx.chat(messages=list(ctx.request.messages), **ctx.request.completion_params)
        assert caplog.records == []

    async def test_an_error_of_the_policy_is_the_agents_to_handle(self) -> None:
        trouble = RuntimeError("no model")
        ctx = context(Policy(trouble, REPLY))
        with pytest.raises(RuntimeError) as caught:
            await ctx.chat(list(REQUEST.messages))
        assert caught.value is trouble
        assert ctx.transcript.error is trouble
        await ctx.chat(list(REQUEST.messages))
        assert ctx.transcript.error is None

    async def test_a_stand_in_may_reply_with_anything(self) -> None:
        answer: Any = object()
        ctx = context(Policy(answer))
        messages = list(REQUEST.messages)
        assert await ctx.chat(messages) is answer
        assert ctx.transcript.messages() == messages

    async def test_a_policy_that_is_not_asynchronous_is_told_apart(self) -> None:
        class Synchronous(Policy):
            def chat_completions(self, *args: Any, **kwargs: Any) -> Any:
                return REPLY

        with pytest.raises(TypeError, match=r"Synchronous\.chat_completions must be a coroutine function"):
            await context(Synchronous()).chat([])


class TestResultsOfAContext:
    def test_complete_keeps_messages_reason_and_reward(self) -> None:
        messages = [{"role": "user"}]
        result = context().complete(messages, "max_turns", 0.25)
        assert (result.status, result.finish_reason, result.reward, result.error_message) == (
            "COMPLETED",
            "max_turns",
            0.25,
            None,
        )
        assert result.final_messages == messages
        assert result.metrics is not None
        assert result.metrics.num_llm_calls == 3

    def test_complete_needs_only_the_messages(self) -> None:
        result = context().complete([])
        assert (result.finish_reason, result.reward) == ("stop", None)

    @pytest.mark.parametrize("messages", [None, []])
    def test_error_needs_only_its_message_and_has_no_reward(self, messages: list[Message] | None) -> None:
        result = context().error("division by zero", messages)
        assert (result.status, result.finish_reason, result.error_message) == ("ERROR", "error", "division by zero")
        assert (result.final_messages, result.reward) == ([], None)
        assert result.metrics is not None

    @pytest.mark.parametrize("status", ["complete", "error"])
    def test_a_result_does_not_change_with_the_agents_list(self, status: str) -> None:
        messages = [{"role": "user"}]
        ctx = context()
        result = ctx.complete(messages) if status == "complete" else ctx.error("no", messages)
        messages.append({"role": "assistant"})
        assert result.final_messages == [{"role": "user"}]


class TestMetrics:
    def test_the_policy_counts_its_part_and_the_context_the_tools(self) -> None:
        ctx = context()
        ctx.record_tool_call()
        ctx.record_tool_call(latency_ms=12.5)
        ctx.record_tool_call(0.5)
        assert (ctx._num_tool_calls, ctx._tool_latency_ms) == (3, 13.0)
        assert ctx._build_metrics() == METRICS.model_copy(
            update={"total_latency_ms": 0.0, "tool_latency_ms": 13.0, "num_tool_calls": 3}
        )

    def test_the_total_is_the_time_since_the_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("osmosis_ai.rollout.core.base.time", SimpleNamespace(monotonic=lambda: 107.5))
        assert context(_start_time=100.0)._build_metrics().total_latency_ms == 7500.0
        assert context(_start_time=0.0)._build_metrics().total_latency_ms == 0.0

    def test_a_stand_in_need_count_no_more_than_calls_latency_and_tokens(self) -> None:
        class Counts:
            llm_latency_ms, num_llm_calls, prompt_tokens, response_tokens = 1.0, 2, 3, 4

        class Minimal(Policy):
            def get_metrics(self) -> Any:
                return Counts()

        metrics = context(Minimal())._build_metrics()
        assert (metrics.num_llm_calls, metrics.response_tokens, metrics.max_context_tokens) == (2, 4, 0)

    def test_a_policy_without_metrics_gives_none_where_a_result_must_be_made_anyway(self) -> None:
        class Broken(Policy):
            def get_metrics(self) -> RolloutMetrics:
                raise RuntimeError("no counts")

        assert context(Broken()).metrics_so_far() is None


class TestContext:
    def test_its_state_can_be_given_and_set_and_stays_out_of_repr(self) -> None:
        ctx = RolloutContext(REQUEST, [TOOL], Policy(), 5.0, 6.0, 7, "/traces")
        assert (ctx._start_time, ctx._tool_latency_ms, ctx._num_tool_calls, ctx._debug_dir) == (5.0, 6.0, 7, "/traces")
        ctx._debug_dir = None
        assert not ctx.debug_enabled
        shown = repr(ctx)
        assert "run7-000042" in shown
        assert "s3cret" not in shown
        assert "_start_time" not in shown
        assert "_trace" not in shown

    def test_a_copy_with_other_state_can_be_made(self) -> None:
        ctx = context(_num_tool_calls=3)
        assert dataclasses.replace(ctx, _num_tool_calls=0)._num_tool_calls == 0


class TestLogEvent:
    def lines(self, path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    @pytest.mark.parametrize("directory", [None, ""])
    def test_without_a_directory_nothing_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str | None
    ) -> None:
        monkeypatch.chdir(tmp_path)
        ctx = context(_debug_dir=directory)
        ctx.log_event("pre_llm", turn=1)
        assert not ctx.debug_enabled
        assert ctx._get_debug_file_path() is None
        assert list(tmp_path.iterdir()) == []

    def test_the_path_joins_directory_and_id_in_the_callers_spelling(self) -> None:
        assert context(_debug_dir="./logs/")._get_debug_file_path() == os.path.join("./logs/", "run7-000042.jsonl")  # noqa: PTH118 - the spelling is the point

    def test_events_are_lines_in_order_and_readable_at_once(self, tmp_path: Path) -> None:
        ctx = context(_debug_dir=str(tmp_path / "a" / "b"))
        assert ctx.debug_enabled
        ctx.log_event("pre_llm", turn=1, note="é")
        path = Path(ctx._get_debug_file_path() or "")
        assert [line["event"] for line in self.lines(path)] == ["pre_llm"]
        ctx.log_event("anything goes", messages=REQUEST.messages)
        first, second = self.lines(path)
        assert list(first) == ["event", "rollout_id", "turn", "note", "time"]
        assert first["rollout_id"] == "run7-000042"
        assert (second["event"], second["messages"]) == ("anything goes", REQUEST.messages)

    def test_it_goes_on_after_the_directory_changed(self, tmp_path: Path) -> None:
        ctx = context(_debug_dir=str(tmp_path / "one"))
        ctx.log_event("a")
        ctx.log_event("b")
        ctx._debug_dir = str(tmp_path / "two")
        ctx.log_event("c")
        assert [line["event"] for line in self.lines(tmp_path / "one" / "run7-000042.jsonl")] == ["a", "b"]
        assert [line["event"] for line in self.lines(tmp_path / "two" / "run7-000042.jsonl")] == ["c"]

    def test_whatever_goes_wrong_is_a_warning(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "file").touch()
        context(_debug_dir=str(tmp_path / "file")).log_event("pre_llm")
        assert [record.levelno for record in caplog.records] == [logging.WARNING]

    def test_a_hostile_id_stays_in_the_directory(self, tmp_path: Path) -> None:
        hostile = REQUEST.model_copy(update={"rollout_id": "../../outside"})
        ctx = RolloutContext(hostile, [], Policy(), _debug_dir=str(tmp_path / "traces"))
        ctx.log_event("pre_llm")
        (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
        assert file.parent == tmp_path / "traces"
        assert self.lines(file)[0]["rollout_id"] == "../../outside"


class Unnamed:
    """The two methods of an agent loop."""

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        self.asked = request
        return [TOOL]

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        return ctx.complete(list(ctx.request.messages))


class Calculator(Unnamed, RolloutAgentLoop):
    name = "calculator"


class TestAgentLoop:
    @pytest.mark.parametrize("attributes", [{}, {"name": ""}, {"name": None}], ids=["missing", "empty", "null"])
    def test_a_class_without_a_name_cannot_be_made(self, attributes: dict[str, Any]) -> None:
        with pytest.raises(TypeError, match=r"Nameless.*must define a 'name' class attribute"):
            type("Nameless", (Unnamed, RolloutAgentLoop), attributes)

    def test_a_name_on_the_instance_is_not_enough(self) -> None:
        def __init__(self: Any) -> None:  # noqa: N807 - becomes the constructor of a class
            self.name = "late"

        with pytest.raises(TypeError, match="must define a 'name' class attribute"):
            type("Late", (Unnamed, RolloutAgentLoop), {"__init__": __init__})

    def test_a_name_may_be_inherited_or_a_property(self) -> None:
        class Child(Calculator):
            pass

        class Computed(Unnamed, RolloutAgentLoop):
            @property
            def name(self) -> str:  # type: ignore[override]  # a property is documented as accepted
                return "computed"

        assert Child().name == "calculator"
        assert Computed().name == "computed"

    def test_an_instance_may_change_its_name_and_have_any_constructor(self) -> None:
        class Configured(Calculator):
            def __init__(self, name: str, *, precision: int) -> None:
                self.name = name
                self.precision = precision

        assert Configured("other", precision=3).name == "other"

    @pytest.mark.parametrize("missing", ["get_tools", "run"])
    def test_a_class_that_lacks_a_method_can_be_defined_but_not_used(self, missing: str) -> None:
        methods = {name: vars(Unnamed)[name] for name in ("get_tools", "run") if name != missing}
        half: Any = type("Half", (RolloutAgentLoop,), {"name": "half", **methods})
        with pytest.raises(TypeError, match=rf"abstract.*{missing}"):
            half()

    def test_a_shared_base_with_a_method_left_open_needs_no_name(self) -> None:
        class Shared(RolloutAgentLoop):
            def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
                return []

            @abstractmethod
            async def run(self, ctx: RolloutContext) -> RolloutResult: ...

        class Concrete(Shared):
            name = "concrete"

            async def run(self, ctx: RolloutContext) -> RolloutResult:
                return ctx.complete([])

        assert Concrete().name == "concrete"
        with pytest.raises(TypeError, match="must define a 'name' class attribute"):
            type("Nameless", (Shared,), {"run": Concrete.run})

    def test_the_base_itself_cannot_be_used(self) -> None:
        base_class: Any = RolloutAgentLoop
        with pytest.raises(TypeError, match="abstract"):
            base_class()

    def test_the_default_tools_are_those_for_a_request_that_asks_for_nothing(self) -> None:
        loop = Calculator()
        assert loop.get_default_tools() == [TOOL]
        assert loop.asked == RolloutRequest(
            rollout_id="discovery", server_url="http://localhost", messages=[], completion_params={}
        )
