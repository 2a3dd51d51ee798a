"""What can go wrong in a local run, in one tree.

::

    LocalExecutionError
    |- DatasetParseError          the file cannot be read as its format
    |- DatasetValidationError     a row is not what an agent needs
    |- ToolValidationError        the agent offers a tool that a model cannot be given
    `- ProviderError              the model gave no answer
       |- PolicyError             ... as a script in its place has failed
       `- SystemicProviderError   ... and will give none to any other row either
          `- InvalidModelError     ... as no model is called so: --model or --base-url is wrong

Each is a `CLIError`: a command that ends with one shows its sentence.
"""

from enum import Enum, StrEnum

from osmosis_ai.rollout.core.user_errors import CLIError, UsageError


class LocalExecutionError(CLIError):
    """Base of every error of a local run."""


class DatasetParseError(LocalExecutionError):
    """The file cannot be read as the format its suffix promises."""


class DatasetValidationError(LocalExecutionError):
    """A row cannot be used; the message starts with ``Row <n>: ``, counted from 0 in the file."""


class ToolValidationError(LocalExecutionError):
    """A tool definition that no model provider accepts."""


class ProviderFailure(Enum):
    """Why a model gave no answer; the value is how reports name it."""

    AUTHENTICATION = "authentication"
    BUDGET = "budget"
    CONNECTION = "connection"
    CONTEXT_WINDOW = "context window"
    MALFORMED_REPLY = "malformed reply"
    MISSING_PACKAGE = "missing package"
    POLICY = "policy"
    RATE_LIMIT = "rate limit"
    REFUSED = "refused request"
    SERVER = "provider's server"
    TIMEOUT = "time limit"
    UNKNOWN = "provider"
    UNKNOWN_MODEL = "unknown model"


class FailedPart(StrEnum):
    """Whose failure a run's was; none of them is the model's wrong answer."""

    PROVIDER = "provider"
    """No usable answer came."""
    TIME_LIMIT = "time limit"
    POLICY = "policy"
    """The script of ``--policy`` raised."""
    AGENT = "agent"
    """Its code, its tools, or what it reported itself."""


def failed_part(error_kind: str | None) -> FailedPart:
    """Whose failure it was, by the ``error_kind`` of a run."""
    if error_kind == ProviderFailure.TIMEOUT.value:
        return FailedPart.TIME_LIMIT
    if error_kind == ProviderFailure.POLICY.value:
        return FailedPart.POLICY
    is_provider = any(error_kind == failure.value for failure in ProviderFailure)
    return FailedPart.PROVIDER if is_provider else FailedPart.AGENT


_WORTH_ANOTHER_TRY = frozenset(
    {
        ProviderFailure.CONNECTION,
        ProviderFailure.MALFORMED_REPLY,
        ProviderFailure.RATE_LIMIT,
        ProviderFailure.SERVER,
        ProviderFailure.TIMEOUT,
    }
)


class ProviderError(LocalExecutionError):
    """The model gave no usable answer to one call.

    ``retry_after_seconds`` is what the provider asked to wait, where it did.
    """

    def __init__(
        self,
        *args: object,
        failure: ProviderFailure = ProviderFailure.UNKNOWN,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(*args)
        self.failure = failure
        self.retry_after_seconds = retry_after_seconds

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed a little later."""
        return self.failure in _WORTH_ANOTHER_TRY


class PolicyError(ProviderError):
    """A script in the model's place raised; the sentence has its text, file and line."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, failure=ProviderFailure.POLICY)


class SystemicProviderError(ProviderError):
    """Every row will fail the same way: authentication, budget, connectivity, unknown model.

    ``duration_ms`` and ``tokens`` say what the failed row had cost, where known; both are ``None`` at first.
    """

    def __init__(self, *args: object, failure: ProviderFailure = ProviderFailure.UNKNOWN) -> None:
        super().__init__(*args, failure=failure)
        self.duration_ms: float | None = None
        self.tokens: int | None = None


class InvalidModelError(SystemicProviderError, UsageError):
    """No model or endpoint can have this name."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, failure=ProviderFailure.UNKNOWN_MODEL)
