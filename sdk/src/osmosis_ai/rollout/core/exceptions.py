"""Every error the SDK raises, in one tree, each with a stable code.

::

    OsmosisRolloutError                 rollout_error
    |- OsmosisTransportError            transport_error      no HTTP answer from the trainer
    |- OsmosisTimeoutError              timeout              an attempt, or the whole call, ran out of time
    |- OsmosisServerError               server_error         the trainer answered 5xx
    |- OsmosisValidationError           request_refused      the trainer answered anything else but success
    |  |- OsmosisAuthenticationError    authentication       401, 403
    |  |- OsmosisNotFoundError          not_found            404, 410: the trainer does not know the rollout
    |  |- OsmosisTrainerAbsentError     trainer_absent       404 of a proxy, or for the path: the trainer is not there
    |  |- OsmosisPayloadTooLargeError   payload_too_large    413
    |  `- OsmosisRateLimitError         rate_limited         408, 425, 429
    |- OsmosisReplyError                bad_reply            success status, but no usable body
    |- OsmosisProtocolError             protocol             a call that the rollout's state forbids
    |- RewardError                      reward               the reward could not be computed
    |  `- JudgeError                    judge                the judge gave no usable answer
    |- AgentLoopNotFoundError           agent_loop_not_found
    `- ToolExecutionError               tool_execution
       `- ToolArgumentError             tool_arguments

All of them survive pickling, so they can cross a process pool.
"""

from http import HTTPStatus
from typing import Any, ClassVar

RETRYABLE_STATUS_CODES = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


def is_retryable_status(status_code: int) -> bool:
    """Whether the same request may succeed later: 408, 425, 429 and every 5xx (RFC 9110, 15.5 and 15.6)."""
    return status_code in RETRYABLE_STATUS_CODES or status_code >= HTTPStatus.INTERNAL_SERVER_ERROR


class OsmosisRolloutError(Exception):
    """Base of every error the SDK raises on purpose."""

    code: ClassVar[str] = "rollout_error"

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception's own way calls the class with ``args``, which are the message, and not all that __init__ takes.
        return type(self).__new__, (type(self), *self.args), self.__dict__


class OsmosisTransportError(OsmosisRolloutError):
    """The trainer gave no HTTP answer: refused, reset, unresolvable, or a URL that cannot be called."""

    code = "transport_error"


class OsmosisTimeoutError(OsmosisRolloutError):
    """The trainer did not answer in time."""

    code = "timeout"


class _StatusError(OsmosisRolloutError):
    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.retry_after_seconds: float | None = None


class OsmosisServerError(_StatusError):
    """The trainer answered 5xx.

    ``status_code`` is the HTTP status, not range-checked; ``retry_after_seconds`` its ``Retry-After``, where sent.
    """

    code = "server_error"


class OsmosisValidationError(_StatusError):
    """The trainer refused the request. ``status_code`` is the HTTP status."""

    code = "request_refused"


class OsmosisAuthenticationError(OsmosisValidationError):
    """The trainer refused the callback key (401 or 403)."""

    code = "authentication"


class OsmosisNotFoundError(OsmosisValidationError):
    """The trainer does not know the rollout, or no longer does (404 or 410)."""

    code = "not_found"


class OsmosisTrainerAbsentError(OsmosisValidationError):
    """Not the trainer's answer: a 404 or 405 that does not speak of the rollout, or a page of HTML."""

    code = "trainer_absent"


class OsmosisPayloadTooLargeError(OsmosisValidationError):
    """The trainer refused the size of the request (413)."""

    code = "payload_too_large"


class OsmosisRateLimitError(OsmosisValidationError):
    """The trainer asked for a later retry (408, 425 or 429) until the attempts ran out."""

    code = "rate_limited"


class OsmosisReplyError(OsmosisValidationError):
    """The trainer answered with success, but the body is not the promised JSON, or its message is not whole."""

    code = "bad_reply"


class OsmosisProtocolError(OsmosisRolloutError):
    """A call that the rollout's state forbids, such as a second completion."""

    code = "protocol"


class RewardError(OsmosisRolloutError):
    """The reward could not be computed: outcome ``reward_error``, and no reward. To be raised by anyone."""

    code = "reward"


class JudgeError(RewardError):
    """The judge gave no usable answer in time, or may not be asked again."""

    code = "judge"


class AgentLoopNotFoundError(OsmosisRolloutError):
    """No agent loop is registered under ``name``; ``available`` lists the names that are."""

    code = "agent_loop_not_found"

    def __init__(self, name: str, available: list[str]) -> None:
        super().__init__(f"Agent loop '{name}' not found. Available: {available}")
        self.name = name
        self.available = available


class ToolExecutionError(OsmosisRolloutError):
    """A tool failed. ``tool_call_id`` and ``tool_name`` say which call, where known."""

    code = "tool_execution"

    def __init__(self, message: str, tool_call_id: str = "", tool_name: str = "") -> None:
        super().__init__(message)
        self.tool_call_id = tool_call_id
        self.tool_name = tool_name


class ToolArgumentError(ToolExecutionError):
    """The arguments of a tool call cannot be used."""

    code = "tool_arguments"
