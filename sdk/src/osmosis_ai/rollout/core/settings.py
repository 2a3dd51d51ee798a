"""Settings: constructor argument, then environment, then ``.env`` in the current directory, then default.

``OSMOSIS_NO_DOTENV=1`` leaves ``.env`` unread; an empty value is as if it were not there. Values out of bounds raise
pydantic's ``ValidationError`` naming the field where a model is made, and a ``SettingsError`` naming the variable where
``get_settings`` reads them. Assignment after construction is not checked. What each field means is in the table of
``docs/settings.md``.
"""

import functools
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from osmosis_ai.rollout.core.consts import NO_DOTENV_VARIABLE
from osmosis_ai.rollout.core.setting_names import tell_of_unknown
from osmosis_ai.rollout.core.text import redacted, sendable_key, shortened
from osmosis_ai.rollout.core.user_errors import UsageError

__all__ = [
    "RolloutClientSettings",
    "RolloutJudgeSettings",
    "RolloutServerSettings",
    "RolloutSettings",
    "configure",
    "get_settings",
    "reset_settings",
]

_PREFIX = "OSMOSIS_ROLLOUT_"
OPENAI_BASE_URL = "https://api.openai.com/v1"
JOURNAL_OFF = "off"
DEFAULT_JOURNAL = ".osmosis/journal.db"
"""Of a server that is not told where to keep one; relative to the current directory."""


_serves_nothing = False


@contextmanager
def serving_nothing() -> Iterator[None]:
    """Within, an empty key of the server is unset, as any other value: where nothing is served, it opens nothing."""
    global _serves_nothing
    before, _serves_nothing = _serves_nothing, True
    try:
        yield
    finally:
        _serves_nothing = before


class LogFormat(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


class Synchronous(StrEnum):
    """When a commit waits for the disk. Both survive the end of the process, however it ends."""

    NORMAL = "normal"
    """At checkpoints only: a power loss or a crash of the operating system may lose the last commits."""
    FULL = "full"
    """At each (grouped) commit."""


class Protocol(StrEnum):
    """Which generations of the protocol a server answers."""

    BOTH = "both"
    PUSH = "0.2"
    """``/v1/rollout/init``: results are posted to the trainer."""
    PULL = "0.3"
    """``/rollout``: the trainer fetches them."""


class MetricsAccess(StrEnum):
    """Who may read ``/metrics``."""

    KEY = "key"
    """Who has ``metrics_key`` or the server's key; anyone where neither is set."""
    OPEN = "open"
    """Anyone."""
    OFF = "off"
    """Nobody; nothing is measured."""


def _config(prefix: str) -> SettingsConfigDict:
    return SettingsConfigDict(
        env_prefix=prefix, env_file=".env", env_file_encoding="utf-8", extra="ignore", hide_input_in_errors=True
    )


class _Settings(BaseSettings):
    _must_not_be_empty: ClassVar[tuple[str, ...]] = ()

    if not TYPE_CHECKING:  # type checkers see the fields as arguments

        def __init__(self, **values):
            if os.environ.get(NO_DOTENV_VARIABLE):
                values.setdefault("_env_file", None)
            try:
                super().__init__(**values)
            except UnicodeDecodeError:
                raise ValueError(
                    f".env in the current directory is not UTF-8: correct it, or set {NO_DOTENV_VARIABLE}=1."
                ) from None

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        # Of an empty key nobody knows what was meant: left out, it would open a server that was to have one.
        kept = () if _serves_nothing else cls._must_not_be_empty
        return {
            name: value for name, value in given.items() if not isinstance(value, str) or value.strip() or name in kept
        }

    def _require_order(self, smaller: str, larger: str) -> None:
        """Refuse two values given in the wrong order; one that is a default bends to the other."""
        low, high = getattr(self, smaller), getattr(self, larger)
        if {smaller, larger} <= self.model_fields_set and low > high:
            raise ValueError(f"{smaller} ({low:g}) must not exceed {larger} ({high:g})")


class RolloutClientSettings(_Settings):
    """Calls to the trainer. Times are seconds; ``*_retries`` count the attempts after the first."""

    model_config = _config(_PREFIX + "CLIENT_")

    timeout_seconds: Annotated[float, Field(ge=1.0, le=3600.0)] = 300.0
    max_retries: Annotated[int, Field(ge=0, le=10)] = 3
    complete_rollout_retries: Annotated[int, Field(ge=0, le=10)] = 2
    retry_base_delay: Annotated[float, Field(ge=0.1, le=60.0)] = 1.0
    retry_max_delay: Annotated[float, Field(ge=1.0, le=300.0)] = 30.0
    max_connections: Annotated[int, Field(ge=1, le=1000)] = 100
    max_keepalive_connections: Annotated[int, Field(ge=1, le=100)] = 20
    call_deadline_seconds: Annotated[float, Field(ge=1.0, le=86400.0)] = 1200.0

    @model_validator(mode="after")
    def _values_are_ordered(self) -> Self:
        self._require_order("retry_base_delay", "retry_max_delay")
        self._require_order("max_keepalive_connections", "max_connections")
        return self


class RolloutJudgeSettings(_Settings):
    """The model that grades, for ``RolloutContext.judge``; times are seconds."""

    model_config = _config(_PREFIX + "JUDGE_")

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/]+\S*$")] = OPENAI_BASE_URL
    model: str = ""
    api_key: SecretStr | None = None
    timeout_seconds: Annotated[float, Field(ge=0.1, le=3600.0)] = 60.0
    max_calls: Annotated[int, Field(ge=1, le=1000)] = 8

    @field_validator("api_key")
    @classmethod
    def _as_a_header_has_it(cls, key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        text = key.get_secret_value().strip() if key is not None else ""
        return SecretStr(sendable_key(text, str(info.field_name))) if text else None


class RolloutServerSettings(_Settings):
    """The server. Times are seconds, sizes bytes."""

    model_config = _config(_PREFIX + "SERVER_")
    _must_not_be_empty: ClassVar[tuple[str, ...]] = ("api_key",)

    max_concurrent_rollouts: Annotated[int, Field(ge=1, le=10000)] = 100
    record_ttl_seconds: Annotated[float, Field(ge=60.0, le=86400.0)] = 3600.0
    cleanup_interval_seconds: Annotated[float, Field(ge=10.0, le=3600.0)] = 60.0
    request_timeout_seconds: Annotated[float, Field(ge=1.0, le=3600.0)] = 600.0
    registration_readiness_timeout_seconds: Annotated[float, Field(ge=1.0, le=60.0)] = 10.0
    registration_readiness_poll_interval_seconds: Annotated[float, Field(ge=0.05, le=5.0)] = 0.2
    registration_shutdown_timeout_seconds: Annotated[float, Field(ge=1.0, le=300.0)] = 30.0
    api_key: SecretStr | None = None
    max_queued_rollouts: Annotated[int, Field(ge=0, le=1_000_000)] = 10_000
    max_total_rollouts: Annotated[int, Field(ge=1, le=10_000_000)] = 50_000
    max_body_bytes: Annotated[int, Field(ge=1024, le=1_073_741_824)] = 33_554_432
    body_timeout_seconds: Annotated[float, Field(ge=0.1, le=600.0)] = 30.0
    max_result_bytes: Annotated[int, Field(ge=4096, le=1_073_741_824)] = 67_108_864
    tool_turn_timeout_seconds: Annotated[float, Field(ge=0.1, le=3600.0)] = 300.0
    tools_timeout_seconds: Annotated[float, Field(ge=0.1, le=600.0)] = 30.0
    drain_seconds: Annotated[float, Field(ge=0.0, le=3600.0)] = 30.0
    flush_seconds: Annotated[float, Field(ge=0.0, le=300.0)] = 5.0
    delivery_deadline_seconds: Annotated[float, Field(ge=0.0, le=604_800.0)] = 86_400.0
    journal: Annotated[str, Field(repr=False)] = JOURNAL_OFF  # a URL may have a password
    journal_synchronous: Synchronous = Synchronous.NORMAL
    allowed_trainer_hosts: str = ""
    protocol: Protocol = Protocol.BOTH
    poll_wait_seconds: Annotated[float, Field(ge=0.1, le=300.0)] = 30.0
    poll_lease_seconds: Annotated[float, Field(ge=1.0, le=86_400.0)] = 120.0
    log_format: LogFormat = LogFormat.TEXT
    metrics: MetricsAccess = MetricsAccess.KEY
    metrics_key: SecretStr | None = None

    @model_validator(mode="after")
    def _a_poll_ends_before_its_lease(self) -> Self:
        self._require_order("poll_wait_seconds", "poll_lease_seconds")
        return self

    @field_validator("api_key", "metrics_key")
    @classmethod
    def _empty_key_locks_everyone_out(cls, key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if key is not None and not key.get_secret_value().strip():
            raise ValueError(f"{info.field_name} must not be empty: unset the variable to serve without a key")
        return key and SecretStr(sendable_key(key.get_secret_value(), str(info.field_name)))


def _decoded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("must be a JSON object") from None


class RolloutSettings(_Settings):
    """Everything; each part reads its own variables for what the JSON of its own leaves open."""

    model_config = _config(_PREFIX)

    client: Annotated[RolloutClientSettings, NoDecode, BeforeValidator(_decoded)] = Field(
        default_factory=RolloutClientSettings
    )
    server: Annotated[RolloutServerSettings, NoDecode, BeforeValidator(_decoded)] = Field(
        default_factory=RolloutServerSettings
    )
    judge: Annotated[RolloutJudgeSettings, NoDecode, BeforeValidator(_decoded)] = Field(
        default_factory=RolloutJudgeSettings
    )
    max_metadata_size_bytes: Annotated[int, Field(ge=1024, le=104_857_600)] = 1_048_576


MODELS: tuple[type[_Settings], ...] = (
    RolloutClientSettings,
    RolloutServerSettings,
    RolloutJudgeSettings,
    RolloutSettings,
)


class SettingsError(UsageError, ValueError):
    """Variables of the environment or of ``.env`` that cannot be used, a sentence each; a program that it ends has
    exit code 2.
    """


def wrong_variables(error: Exception) -> list[tuple[str, str]]:
    """The variables that pydantic found wrong, each with its reason; ``[]`` if ``error`` is not about settings."""
    models: dict[str, type[_Settings]] = {model.__name__: model for model in MODELS}
    if not isinstance(error, ValidationError) or error.title not in models:
        return []
    return [_wrong(models[error.title], each) for each in error.errors(include_url=False, include_context=False)]


def _wrong(model: type[_Settings], error: Any) -> tuple[str, str]:
    prefix = str(model.model_config.get("env_prefix"))
    path = [str(step) for step in error["loc"]]
    said = error["msg"].removeprefix("Value error, ")
    if not path:  # of several fields
        return prefix + "*", re.sub(r"\b[a-z]+(_[a-z]+)+\b", lambda name: prefix + name[0].upper(), said)
    field = model.model_fields.get(path[0])
    for step in path[1:]:
        inner = getattr(field and field.annotation, "model_fields", {})
        field = inner.get(step)
    variable = prefix + "_".join(path).upper()
    if error["type"] == "value_error" or field is None:
        return variable, redacted(said.replace(path[-1], "it", 1) if said.startswith(path[-1]) else f"it {said}")
    wanted = _wanted(field)
    # A secret is not told, and what stands in its place may be one.
    shown = "" if "SecretStr" in str(field.annotation) else f", not {shortened(redacted(repr(error['input'])), 80)}"
    return variable, f"it must be {wanted}{shown}"


_WANTED = {int: "a whole number", float: "a number"}


def _wanted(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if kind in _WANTED:
        low, high = (
            next(getattr(each, name) for each in field.metadata if hasattr(each, name)) for name in ("ge", "le")
        )
        return f"{_WANTED[kind]} from {low:.12g} to {high:.12g}"
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return "one of " + ", ".join(kind)
    if isinstance(kind, type) and issubclass(kind, BaseSettings):
        return "a JSON object"
    return (
        "a URL such as http://127.0.0.1:8000/v1"
        if any(hasattr(each, "pattern") for each in field.metadata)
        else "a text"
    )


def read_settings() -> RolloutSettings:
    """The settings as the environment says now; a variable that is misspelt is logged.

    Raises:
        SettingsError: a variable is out of bounds or cannot be parsed.
    """
    tell_of_unknown(MODELS)
    try:
        return RolloutSettings()
    except ValueError as error:
        _end_in_one_sentence()
        wrong = [f"The setting {variable} cannot be used: {why}" for variable, why in wrong_variables(error)]
        if not wrong:
            raise SettingsError(str(error)) from error
        raise SettingsError("; ".join(wrong) + "; correct it in the environment or in .env.") from None


@functools.cache
def _end_in_one_sentence() -> None:
    """Let a ``SettingsError`` that nobody catches, as in ``uvicorn server:app``, end a program as it does a command."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if not isinstance(error, SettingsError):
            before(kind, error, traceback)
            return
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)

    sys.excepthook = hook


_settings: RolloutSettings | None = None


def get_settings() -> RolloutSettings:
    """The process-wide settings, built from the environment on the first call.

    Raises:
        SettingsError: a variable is out of bounds or cannot be parsed.
    """
    global _settings
    if _settings is None:
        _settings = read_settings()
    return _settings


def configure(settings: RolloutSettings) -> None:
    """Replace the process-wide settings.

    Raises:
        TypeError: if ``settings`` is not a ``RolloutSettings``.
    """
    if not isinstance(settings, RolloutSettings):
        raise TypeError(f"configure() takes a RolloutSettings, got {type(settings).__name__}.")
    global _settings
    _settings = settings


def reset_settings() -> None:
    """Forget the process-wide settings, so that the next ``get_settings`` reads the environment again."""
    global _settings
    _settings = None
