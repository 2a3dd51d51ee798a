"""The wire vocabulary: tools, tool calls, and the three messages of a rollout (init, chat, completion).

Unknown keys are ignored, except in tool schemas, whose JSON Schema passes through whole. Models are mutable and
assignment is not re-validated. See ``docs/protocol.md``, sections 3 to 5.
"""

import json
import re
from enum import Enum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from osmosis_ai.rollout.core.server_url import check_server_url

MessageDict = dict[str, Any]
SamplingParamsDict = dict[str, Any]

DEFAULT_MAX_METADATA_SIZE_BYTES = 1_048_576
MAX_ROLLOUT_ID_LENGTH = 256

_max_metadata_size_bytes: int | None = None


def get_max_metadata_size_bytes() -> int:
    """The process-wide limit of a request's ``metadata``, in bytes of its JSON text.

    Until it is set, that is the setting ``max_metadata_size_bytes``.
    """
    if _max_metadata_size_bytes is not None:
        return _max_metadata_size_bytes
    from osmosis_ai.rollout.core.settings import get_settings

    return get_settings().max_metadata_size_bytes


def set_max_metadata_size_bytes(size_bytes: int) -> None:
    """Set the process-wide metadata limit; requests validated from now on obey it.

    Raises:
        ValueError: if ``size_bytes`` is zero or negative; the limit stays as it was.
    """
    if size_bytes <= 0:
        raise ValueError(f"The metadata limit must be positive, got {size_bytes} bytes.")
    global _max_metadata_size_bytes
    _max_metadata_size_bytes = size_bytes


class _ToolSchemaModel(BaseModel):
    """Part of a tool definition: every JSON Schema keyword the author wrote is kept, null ones included."""

    model_config = ConfigDict(extra="allow")

    @model_serializer(mode="wrap")
    def _keep_explicit_nulls(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        if info.exclude_none:
            dumped.update({key: None for key, value in (self.__pydantic_extra__ or {}).items() if value is None})
        return dumped


TOOL_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}\Z")
"""The names of functions that every model provider takes."""
TOOL_NAME_IN_WORDS = "a letter or '_', then up to 63 letters, digits, '_' and '-'"

# A property without `type` is complete when one of these says what it is (JSON Schema 2020-12).
_STANDS_FOR_TYPE = frozenset({"$ref", "allOf", "anyOf", "const", "enum", "if", "not", "oneOf"})


class OpenAIFunctionPropertySchema(_ToolSchemaModel):
    """One parameter of a tool: any JSON Schema. ``type`` may be left out only where another keyword stands for it."""

    type: str | list[str] | None = None
    description: str | None = None
    enum: list[Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _requires_a_type(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("type") is None and not _STANDS_FOR_TYPE & data.keys():
            raise PydanticCustomError("missing", "Field required: 'type' (or a keyword such as 'anyOf' or 'enum')")
        return data


class OpenAIFunctionParametersSchema(_ToolSchemaModel):
    """The parameters of a tool, a JSON Schema of type ``object``."""

    type: str
    properties: dict[str, OpenAIFunctionPropertySchema]
    required: list[str]


class OpenAIFunctionSchema(_ToolSchemaModel):
    """A tool as the model sees it."""

    name: str
    description: str
    parameters: OpenAIFunctionParametersSchema = Field(
        default_factory=lambda: OpenAIFunctionParametersSchema(type="object", properties={}, required=[])
    )
    strict: bool = False


class OpenAIFunctionToolSchema(_ToolSchemaModel):
    """One entry of a request's tools; ``type`` is by convention ``"function"``.

    Dump it with ``exclude_none=True`` for a model provider: providers refuse ``"enum": null``.
    """

    type: str
    function: OpenAIFunctionSchema


def tool_as_json(tool: Any) -> Any:
    """A tool as a model provider takes it; what is no schema object is JSON already."""
    return tool.model_dump(exclude_none=True) if hasattr(tool, "model_dump") else tool


class OpenAIFunctionParsedSchema(BaseModel):
    """A called function as it comes from the model: ``arguments`` is JSON text."""

    name: str
    arguments: str


class OpenAIFunctionCallSchema(BaseModel):
    """A called function with decoded arguments."""

    name: str
    arguments: dict[str, Any]

    @staticmethod
    def from_openai_function_parsed_schema(
        parsed_schema: OpenAIFunctionParsedSchema,
    ) -> "tuple[OpenAIFunctionCallSchema, bool]":
        """Decode the arguments; where they are no JSON object the flag is ``True`` and ``arguments`` is ``{}``."""
        try:
            arguments = json.loads(parsed_schema.arguments)
        except (ValueError, RecursionError):
            arguments = None
        failed = not isinstance(arguments, dict)
        return OpenAIFunctionCallSchema(name=parsed_schema.name, arguments={} if failed else arguments), failed


class OpenAIFunctionToolCall(BaseModel):
    """One tool call with decoded arguments."""

    id: str
    type: Literal["function"] = "function"
    function: OpenAIFunctionCallSchema


def _list_or_null(value: Any, info: Any) -> Any:
    if value is not None and not isinstance(value, list):
        raise ValueError(f"{info.field_name} must be a list")
    return value


class ToolResponse(BaseModel):
    """What a tool gave back; at least one of the three is normally set."""

    text: str | None = None
    image: Annotated[list[Any] | None, BeforeValidator(_list_or_null)] = None
    video: Annotated[list[Any] | None, BeforeValidator(_list_or_null)] = None

    def is_empty(self) -> bool:
        """Whether there is no text, image or video."""
        return not (self.text or self.image or self.video)

    def is_text_only(self) -> bool:
        """Whether there is text and nothing else."""
        return bool(self.text) and not (self.image or self.video)


class RolloutStatus(str, Enum):  # noqa: UP042 - str() of a member is part of the 0.2 surface
    """How a rollout ended."""

    COMPLETED = "COMPLETED"
    ERROR = "ERROR"


class RolloutMetrics(BaseModel):
    """Times in milliseconds and counts of one rollout.

    ``max_context_tokens`` is the largest prompt of any call, 0 where the trainer reports no usage.
    """

    total_latency_ms: float = 0.0
    llm_latency_ms: float = 0.0
    tool_latency_ms: float = 0.0
    num_llm_calls: int = 0
    num_tool_calls: int = 0
    prompt_tokens: int = 0
    response_tokens: int = 0
    max_context_tokens: int = 0


def _not_blank(rollout_id: str) -> str:
    if not rollout_id.strip():
        raise ValueError("rollout_id cannot be empty or whitespace only")
    return rollout_id


RolloutId = Annotated[str, Field(min_length=1, max_length=MAX_ROLLOUT_ID_LENGTH), AfterValidator(_not_blank)]


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a whole number, not a boolean")
    return value


_Count = Annotated[int, BeforeValidator(_no_boolean)]


class RolloutRequest(BaseModel):
    """Body of ``POST /v1/rollout/init``.

    ``api_key`` is the bearer token for callbacks; it stays out of ``repr`` and of the text of validation errors.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    rollout_id: RolloutId
    server_url: Annotated[str, AfterValidator(check_server_url)]
    messages: list[MessageDict]
    completion_params: SamplingParamsDict
    tool_server_url: str | None = None
    max_turns: _Count = 10
    max_tokens_total: _Count = 8192
    metadata: dict[str, Any] = {}
    api_key: str | None = Field(default=None, repr=False)
    idempotency_key: str | None = None

    @field_validator("metadata")
    @classmethod
    def _fits_the_limit(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        if not metadata:
            return metadata
        try:
            size_bytes = len(json.dumps(metadata))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"metadata must be JSON serializable ({error})") from None
        limit_bytes = get_max_metadata_size_bytes()
        if size_bytes > limit_bytes:
            raise ValueError(
                f"metadata size of {size_bytes} bytes exceeds maximum of {limit_bytes} bytes"
                f" ({limit_bytes / 1_048_576:.3g}MB)"
            )
        return metadata


class InitResponse(BaseModel):
    """Body of the 202: the tools the agent offers. Dumped with ``exclude_none=True``, as every tool schema."""

    rollout_id: str
    tools: list[OpenAIFunctionToolSchema] = Field(default_factory=list)


class CancelRequest(BaseModel):
    """Which rollouts to cancel: exactly one of the three."""

    ids: list[str] | None = None
    prefix: Annotated[str, Field(min_length=1)] | None = None
    all: Literal[True] | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if [self.ids, self.prefix, self.all].count(None) != 2:
            raise ValueError('give one of "ids", "prefix" and "all"')
        return self


class RolloutResponse(BaseModel):
    """Body of ``POST /v1/rollout/completed``, dumped without nulls."""

    rollout_id: str
    status: RolloutStatus
    final_messages: list[MessageDict] = Field(default_factory=list)
    finish_reason: str | None = None
    error_message: str | None = None
    reward: float | None = None
    metrics: RolloutMetrics | None = None
    extra_fields: dict[str, Any] = Field(default_factory=dict)


class SamplingFields(BaseModel):
    """The sampling fields of a chat call that the protocol gives a default; every other one passes through as is."""

    model: str = "default"
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: list[str] | None = None
    logprobs: bool = True


def _whole(value: Any) -> Any:
    return (
        int(value) if isinstance(value, float) and value.is_integer() else value
    )  # 512.0 is an integer in JSON Schema


class CompletionParams(BaseModel):
    """What an init may say of ``SamplingFields``: of the right type as it stands, as nothing of it is converted."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: Annotated[int | None, BeforeValidator(_whole)] = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None


class CompletionsRequest(SamplingFields):
    """Body of ``POST /v1/chat/completions``, dumped without top-level nulls."""

    model_config = ConfigDict(extra="ignore")

    messages: list[MessageDict]
    rollout_id: RolloutId


class CompletionsChoice(BaseModel):
    """One generated message."""

    index: int = 0
    message: MessageDict
    finish_reason: str = "stop"


class CompletionUsage(BaseModel):
    """Token counts of one call."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class CompletionsResponse(BaseModel):
    """Reply of ``/v1/chat/completions``; the token fields are the trainer's own bookkeeping."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str = "default"
    choices: list[CompletionsChoice]
    usage: CompletionUsage | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    logprobs: list[float] | None = None
