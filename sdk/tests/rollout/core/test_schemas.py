"""The messages of the protocol: what each accepts, its defaults, and what it refuses."""

import json
import threading
from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, ValidationError
from support.rollouts import tool

from osmosis_ai.rollout.core import schemas
from osmosis_ai.rollout.core.schemas import (
    DEFAULT_MAX_METADATA_SIZE_BYTES,
    CompletionsChoice,
    CompletionsRequest,
    CompletionsResponse,
    CompletionUsage,
    InitResponse,
    OpenAIFunctionCallSchema,
    OpenAIFunctionParametersSchema,
    OpenAIFunctionParsedSchema,
    OpenAIFunctionPropertySchema,
    OpenAIFunctionSchema,
    OpenAIFunctionToolCall,
    OpenAIFunctionToolSchema,
    RolloutMetrics,
    RolloutRequest,
    RolloutResponse,
    RolloutStatus,
    ToolResponse,
    get_max_metadata_size_bytes,
    set_max_metadata_size_bytes,
)

INIT: dict[str, Any] = {
    "rollout_id": "run7-000042",
    "server_url": "https://trainer.example:8443",
    "messages": [{"role": "user", "content": "How many grams are in 3 ounces?"}],
    "completion_params": {"temperature": 0.8, "top_p": 0.95, "max_tokens": 400, "logprobs": True},
}


@pytest.fixture(autouse=True)
def _limit_never_set(default_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "_max_metadata_size_bytes", None)


def init(**changes: Any) -> RolloutRequest:
    return RolloutRequest(**{**INIT, **changes})


def first_error(caught: pytest.ExceptionInfo[ValidationError]) -> tuple[str, str]:
    error = caught.value.errors()[0]
    return error["type"], error["msg"]


class TestDefaults:
    @pytest.mark.parametrize(
        ("model", "required", "defaults"),
        [
            (OpenAIFunctionPropertySchema, {"type": "string"}, {"description": None, "enum": None}),
            (OpenAIFunctionParametersSchema, {"type": "object", "properties": {}, "required": []}, {}),
            (
                OpenAIFunctionSchema,
                {"name": "add", "description": "Add"},
                {"parameters": {"type": "object", "properties": {}, "required": []}, "strict": False},
            ),
            (OpenAIFunctionToolSchema, tool(), {}),
            (OpenAIFunctionParsedSchema, {"name": "add", "arguments": "{}"}, {}),
            (OpenAIFunctionCallSchema, {"name": "add", "arguments": {}}, {}),
            (
                OpenAIFunctionToolCall,
                {"id": "c", "function": {"name": "add", "arguments": {}}},
                {"type": "function"},
            ),
            (ToolResponse, {}, {"text": None, "image": None, "video": None}),
            (
                RolloutMetrics,
                {},
                {
                    "total_latency_ms": 0.0,
                    "llm_latency_ms": 0.0,
                    "tool_latency_ms": 0.0,
                    "num_llm_calls": 0,
                    "num_tool_calls": 0,
                    "prompt_tokens": 0,
                    "response_tokens": 0,
                    "max_context_tokens": 0,
                },
            ),
            (
                RolloutRequest,
                INIT,
                {
                    "tool_server_url": None,
                    "max_turns": 10,
                    "max_tokens_total": 8192,
                    "metadata": {},
                    "api_key": None,
                    "idempotency_key": None,
                },
            ),
            (InitResponse, {"rollout_id": "r"}, {"tools": []}),
            (
                RolloutResponse,
                {"rollout_id": "", "status": "ERROR"},
                {
                    "final_messages": [],
                    "finish_reason": None,
                    "error_message": None,
                    "reward": None,
                    "metrics": None,
                    "extra_fields": {},
                },
            ),
            (
                CompletionsRequest,
                {"messages": [], "rollout_id": "r"},
                {
                    "model": "default",
                    "temperature": 1.0,
                    "top_p": 1.0,
                    "max_tokens": 512,
                    "stop": None,
                    "logprobs": True,
                },
            ),
            (CompletionsChoice, {"message": {}}, {"index": 0, "finish_reason": "stop"}),
            (CompletionUsage, {}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
            (
                CompletionsResponse,
                {"id": "c", "created": 1, "choices": []},
                {
                    "object": "chat.completion",
                    "model": "default",
                    "usage": None,
                    "token_ids": None,
                    "prompt_token_ids": None,
                    "logprobs": None,
                },
            ),
        ],
        ids=lambda value: value.__name__ if isinstance(value, type) else "",
    )
    def test_a_model_has_its_required_fields_and_defaults_and_no_others(
        self, model: type[BaseModel], required: dict[str, Any], defaults: dict[str, Any]
    ) -> None:
        filled = model(**required)
        dumped = filled.model_dump(mode="json")
        assert {name: dumped[name] for name in defaults} == defaults
        assert set(dumped) == {*required, *defaults}
        for name in required:
            with pytest.raises(ValidationError):
                model(**{other: value for other, value in required.items() if other != name})

    def test_two_requests_do_not_share_a_default(self) -> None:
        init().metadata["x"] = 1
        assert init().metadata == {}

    def test_unknown_keys_are_dropped_and_assignment_is_not_checked(self) -> None:
        request = init(colour="red")
        assert "colour" not in request.model_dump()
        assert not hasattr(request, "colour")
        request.max_turns = -5
        assert request.max_turns == -5

    def test_ordinary_coercion_applies(self) -> None:
        metrics = RolloutMetrics.model_validate({"num_llm_calls": "3", "total_latency_ms": "1.5", "prompt_tokens": -1})
        assert (metrics.num_llm_calls, metrics.total_latency_ms, metrics.prompt_tokens) == (3, 1.5, -1)


class TestStatus:
    def test_there_are_two_and_they_equal_their_text(self) -> None:
        assert [status.value for status in RolloutStatus] == ["COMPLETED", "ERROR"]
        assert RolloutStatus("COMPLETED") == "COMPLETED"
        assert isinstance(RolloutStatus.ERROR, str)

    @pytest.mark.parametrize("status", ["completed", "Error", "", "DONE"])
    def test_no_other_is_accepted(self, status: str) -> None:
        with pytest.raises(ValueError, match="is not a valid RolloutStatus"):
            RolloutStatus(status)
        with pytest.raises(ValidationError):
            RolloutResponse.model_validate({"rollout_id": "r", "status": status})


class TestRolloutId:
    BUILDERS = (init, lambda rollout_id: CompletionsRequest(messages=[], rollout_id=rollout_id))

    @pytest.mark.parametrize("build", BUILDERS, ids=["init", "chat"])
    @pytest.mark.parametrize("rollout_id", ["x", "x" * 256, " padded ", "../x", "a/b", "a\0b", "é😀"])
    def test_any_characters_are_kept_as_they_are(self, build: Any, rollout_id: str) -> None:
        assert build(rollout_id=rollout_id).rollout_id == rollout_id

    @pytest.mark.parametrize("build", BUILDERS, ids=["init", "chat"])
    @pytest.mark.parametrize(
        ("rollout_id", "error_type", "text"),
        [
            ("", "string_too_short", ""),
            ("x" * 257, "string_too_long", ""),
            (" \t\n", "value_error", "rollout_id cannot be empty or whitespace only"),
        ],
        ids=["empty", "long", "blank"],
    )
    def test_empty_long_and_blank_ids_are_refused(
        self, build: Any, rollout_id: str, error_type: str, text: str
    ) -> None:
        with pytest.raises(ValidationError) as caught:
            build(rollout_id=rollout_id)
        assert first_error(caught)[0] == error_type
        assert text in first_error(caught)[1]


class TestServerUrl:
    @pytest.mark.parametrize(
        "url",
        [
            "http://localhost",
            "https://trainer.example:8443/",
            "HTTP://trainer",
            "http://10.0.0.1:65535/a/b//",
            "http://[::1]:9000",
            "http://my_service:8000",
            "https://träiner.example",
        ],
    )
    def test_a_base_url_is_kept_verbatim(self, url: str) -> None:
        assert init(server_url=url).server_url == url

    @pytest.mark.parametrize(
        ("url", "text"),
        [
            ("", "server_url must use http or https scheme"),
            ("trainer:8000", "server_url must use http or https scheme"),
            ("ftp://trainer", "server_url must use http or https scheme"),
            ("file:///etc/passwd", "server_url must use http or https scheme"),
            ("//trainer", "server_url must use http or https scheme"),
            ("http://", "server_url must have a valid host"),
            ("http:trainer", "server_url must have a valid host"),
            ("http:///path", "server_url must have a valid host"),
            ("http://:80", "server_url must have a valid host"),
            ("http://user@", "server_url must have a valid host"),
            ("http://..", "server_url must have a valid host"),
            ("http://[::1", "server_url must have a valid host"),
            ("http://allowed.example\\.evil.example", "server_url must have a valid host"),
            ("http://trainer:port", "valid host and port"),
            ("http://trainer:99999", "valid host and port"),
            ("http://trainer:0", "valid host and port"),
            ("http://user:word@trainer", "must not carry user info"),
            ("http://allowed.example@evil.example", "must not carry user info"),
            ("http://trainer?x=1", "must not have a query or a fragment"),
            ("http://trainer?", "must not have a query or a fragment"),
            ("http://trainer/#x", "must not have a query or a fragment"),
            (" http://trainer", "must not contain whitespace"),
            ("http://trainer\n", "must not contain whitespace"),
            ("http://tra iner", "must not contain whitespace"),
            ("http://trainer\x7f", "must not contain whitespace or control characters"),
        ],
    )
    def test_what_cannot_be_called_or_joined_is_refused_with_the_reason(self, url: str, text: str) -> None:
        with pytest.raises(ValidationError) as caught:
            init(server_url=url)
        assert text in first_error(caught)[1]

    @given(st.text(st.characters(), max_size=30), st.sampled_from(["", "http://", "https://"]))
    def test_no_text_makes_the_check_raise_anything_else(self, rest: str, scheme: str) -> None:
        with suppress(ValidationError):
            init(server_url=scheme + rest)


class TestRequest:
    @pytest.mark.parametrize("field", ["messages", "completion_params", "metadata"])
    def test_null_is_no_collection(self, field: str) -> None:
        with pytest.raises(ValidationError, match=field):
            init(**{field: None})

    def test_empty_messages_and_params_are_fine(self) -> None:
        assert init(messages=[], completion_params={}).messages == []

    @pytest.mark.parametrize("messages", ["hi", ["hi"], [None], {}])
    def test_messages_are_a_list_of_objects(self, messages: Any) -> None:
        with pytest.raises(ValidationError, match="messages"):
            init(messages=messages)

    def test_limits_are_advisory(self) -> None:
        assert init(max_turns=-1, max_tokens_total=0).max_turns == -1

    def test_the_key_stays_out_of_repr_and_of_errors(self) -> None:
        assert init(api_key="s3cret").api_key == "s3cret"
        assert "s3cret" not in repr(init(api_key="s3cret")) + str(init(api_key="s3cret"))
        for broken in (
            {"api_key": "s3cret"},
            {**INIT, "api_key": ["s3cret"]},
            {**INIT, "api_key": "s3cret", "server_url": ""},
        ):
            with pytest.raises(ValidationError) as caught:
                RolloutRequest.model_validate(broken)
            assert "s3cret" not in str(caught.value)


class TestMetadata:
    def size_bytes(self, metadata: dict[str, Any]) -> int:
        return len(json.dumps(metadata))

    @pytest.mark.parametrize("text", ["x" * 100, "é" * 20, "\ud800"])
    def test_a_text_of_exactly_the_limit_passes_and_one_byte_more_does_not(self, text: str) -> None:
        metadata = {"text": text}
        set_max_metadata_size_bytes(self.size_bytes(metadata))
        assert init(metadata=metadata).metadata == metadata
        set_max_metadata_size_bytes(self.size_bytes(metadata) - 1)
        with pytest.raises(ValidationError) as caught:
            init(metadata=metadata)
        message = first_error(caught)[1]
        assert f"metadata size of {self.size_bytes(metadata)} bytes exceeds maximum of" in message
        assert f"{self.size_bytes(metadata) - 1} bytes" in message
        assert "MB" in message

    def test_the_default_limit_is_a_mebibyte(self) -> None:
        assert get_max_metadata_size_bytes() == DEFAULT_MAX_METADATA_SIZE_BYTES == 1_048_576
        with pytest.raises(ValidationError, match="exceeds maximum"):
            init(metadata={"x": "x" * 1_048_576})

    def test_no_metadata_is_never_too_large(self) -> None:
        set_max_metadata_size_bytes(1)
        assert init(metadata={}).metadata == {}

    @pytest.mark.parametrize("value", [object(), {1}, b"x", [10**5000]])
    def test_what_is_not_json_is_refused(self, value: Any) -> None:
        with pytest.raises(ValidationError, match="metadata must be JSON serializable"):
            init(metadata={"nested": [value]})

    def test_bottomless_and_circular_metadata_are_refused(self) -> None:
        circular: dict[str, Any] = {}
        circular["self"] = circular
        deep: dict[str, Any] = {}
        for _ in range(100_000):
            deep = {"d": deep}
        for metadata in (circular, deep):
            with pytest.raises(ValidationError, match="metadata must be JSON serializable"):
                init(metadata=metadata)

    @pytest.mark.parametrize("size_bytes", [0, -1])
    def test_a_limit_that_is_not_positive_is_refused_and_changes_nothing(self, size_bytes: int) -> None:
        set_max_metadata_size_bytes(5000)
        with pytest.raises(ValueError, match="must be positive"):
            set_max_metadata_size_bytes(size_bytes)
        assert get_max_metadata_size_bytes() == 5000

    def test_the_limit_is_one_for_all_threads(self) -> None:
        thread = threading.Thread(target=set_max_metadata_size_bytes, args=(777,))
        thread.start()
        thread.join()
        assert get_max_metadata_size_bytes() == 777


class TestChatSchemas:
    @pytest.mark.parametrize("field", ["temperature", "top_p", "max_tokens", "logprobs", "model"])
    def test_null_is_no_sampling_value(self, field: str) -> None:
        with pytest.raises(ValidationError, match=field):
            CompletionsRequest.model_validate({"messages": [], "rollout_id": "r", field: None})

    def test_stop_is_a_list(self) -> None:
        with pytest.raises(ValidationError, match="stop"):
            CompletionsRequest.model_validate({"messages": [], "rollout_id": "r", "stop": "END"})

    def test_values_are_not_bounded(self) -> None:
        request = CompletionsRequest(messages=[], rollout_id="r", temperature=-3, top_p=9, max_tokens=0)
        assert (request.temperature, request.top_p, request.max_tokens) == (-3, 9, 0)


def test_the_aliases_are_plain_dicts() -> None:
    for alias in (schemas.MessageDict, schemas.SamplingParamsDict):
        assert get_args(alias) == (str, Any)
