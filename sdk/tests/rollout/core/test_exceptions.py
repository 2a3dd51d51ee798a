"""One tree of errors, with the documented constructors, that can cross a process pool."""

import copy
import pickle
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from osmosis_ai._compat.registry import get_agent_loop
from osmosis_ai.rollout.core import exceptions
from osmosis_ai.rollout.core.exceptions import (
    AgentLoopNotFoundError,
    OsmosisAuthenticationError,
    OsmosisNotFoundError,
    OsmosisPayloadTooLargeError,
    OsmosisProtocolError,
    OsmosisRateLimitError,
    OsmosisReplyError,
    OsmosisRolloutError,
    OsmosisServerError,
    OsmosisTimeoutError,
    OsmosisTransportError,
    OsmosisValidationError,
    ToolArgumentError,
    ToolExecutionError,
    is_retryable_status,
)

WITH_STATUS: list[type[OsmosisServerError | OsmosisValidationError]] = [
    OsmosisServerError,
    OsmosisValidationError,
    OsmosisAuthenticationError,
    OsmosisNotFoundError,
    OsmosisPayloadTooLargeError,
    OsmosisRateLimitError,
    OsmosisReplyError,
]
ERRORS: list[OsmosisRolloutError] = [
    OsmosisRolloutError("base"),
    OsmosisRolloutError(),
    OsmosisTransportError("no answer"),
    OsmosisTimeoutError("too late"),
    OsmosisProtocolError("twice"),
    *[error_class("refused", 418) for error_class in WITH_STATUS],
    OsmosisServerError(message="by name", status_code=500),
    AgentLoopNotFoundError("calc", ["a", "b"]),
    ToolExecutionError("broken", "call_1", "add"),
    ToolArgumentError("bad", tool_name="add"),
]


class ForeignError(OsmosisServerError):
    """What a user derives, with a constructor of its own."""

    def __init__(self, host: str, *, code: int) -> None:
        super().__init__(f"{host} answered {code}", code)
        self.host = host


def subclasses(error_class: type[OsmosisRolloutError]) -> set[type[OsmosisRolloutError]]:
    return {error_class}.union(*(subclasses(below) for below in error_class.__subclasses__()))


def through_pickle(error: OsmosisRolloutError) -> Any:
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes


class TestTree:
    @pytest.mark.parametrize(
        ("error_class", "base"),
        [
            (OsmosisRolloutError, Exception),
            (OsmosisTransportError, OsmosisRolloutError),
            (OsmosisTimeoutError, OsmosisRolloutError),
            (OsmosisServerError, OsmosisRolloutError),
            (OsmosisValidationError, OsmosisRolloutError),
            (AgentLoopNotFoundError, OsmosisRolloutError),
            (ToolExecutionError, OsmosisRolloutError),
            (ToolArgumentError, ToolExecutionError),
            (OsmosisAuthenticationError, OsmosisValidationError),
            (OsmosisNotFoundError, OsmosisValidationError),
            (OsmosisPayloadTooLargeError, OsmosisValidationError),
            (OsmosisRateLimitError, OsmosisValidationError),
        ],
    )
    def test_a_class_has_its_documented_base(self, error_class: type[Exception], base: type[Exception]) -> None:
        assert issubclass(error_class, base)

    def test_a_server_error_is_no_validation_error(self) -> None:
        assert not issubclass(OsmosisServerError, OsmosisValidationError)
        assert not issubclass(OsmosisTimeoutError, OsmosisTransportError)

    def test_the_module_draws_every_class_with_its_code_and_no_code_twice(self) -> None:
        drawn = dict(re.findall(r"(\w+Error) +(\w+)", exceptions.__doc__ or ""))
        public = {
            error_class
            for error_class in subclasses(OsmosisRolloutError)
            if error_class.__module__ == exceptions.__name__ and not error_class.__name__.startswith("_")
        }
        assert drawn == {error_class.__name__: error_class.code for error_class in public}
        assert len(set(drawn.values())) == len(drawn)


class TestConstruction:
    @pytest.mark.parametrize("error_class", [OsmosisRolloutError, OsmosisTransportError, OsmosisTimeoutError])
    def test_the_plain_ones_are_made_like_any_exception(self, error_class: type[OsmosisRolloutError]) -> None:
        assert str(error_class()) == ""
        assert str(error_class("message")) == "message"
        assert error_class("a", 2).args == ("a", 2)

    @pytest.mark.parametrize("error_class", WITH_STATUS)
    def test_a_status_is_required_kept_and_not_part_of_the_text(
        self, error_class: type[OsmosisServerError | OsmosisValidationError]
    ) -> None:
        assert str(error_class("message", 404)) == "message"
        assert error_class("message", 404).status_code == 404
        assert error_class(message="message", status_code=-1).status_code == -1
        without_status: Any = error_class
        with pytest.raises(TypeError):
            without_status("message")

    @pytest.mark.parametrize(("available", "shown"), [(["agent1", "agent2"], "['agent1', 'agent2']"), ([], "[]")])
    def test_an_unknown_agent_loop_is_told_with_those_that_exist(self, available: list[str], shown: str) -> None:
        error = AgentLoopNotFoundError("calc", available)
        assert str(error) == f"Agent loop 'calc' not found. Available: {shown}"
        assert error.name == "calc"
        assert error.available is available

    @pytest.mark.parametrize("error_class", [ToolExecutionError, ToolArgumentError])
    def test_a_tool_error_says_which_call_where_that_is_known(self, error_class: type[ToolExecutionError]) -> None:
        error = error_class("broken", "call_1", tool_name="add")
        assert (str(error), error.tool_call_id, error.tool_name) == ("broken", "call_1", "add")
        assert (error_class("broken").tool_call_id, error_class("broken").tool_name) == ("", "")


class TestCopies:
    @pytest.mark.parametrize(
        "error", [*ERRORS, ForeignError("trainer", code=503)], ids=lambda error: type(error).__name__
    )
    @pytest.mark.parametrize(
        "through",
        [through_pickle, copy.copy, copy.deepcopy],
        ids=["pickle", "copy", "deepcopy"],
    )
    def test_a_copy_says_and_knows_the_same(self, error: OsmosisRolloutError, through: Any) -> None:
        twin = through(error)
        assert type(twin) is type(error)
        assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))

    def test_what_was_learnt_later_is_copied_too(self) -> None:
        error = OsmosisServerError("busy", 503)
        error.retry_after_seconds = 7.0
        error.add_note("seen in a test")
        twin = through_pickle(error)
        assert (twin.retry_after_seconds, twin.__notes__) == (7.0, ["seen in a test"])

    @pytest.mark.slow
    def test_an_error_comes_back_from_a_process_pool(self) -> None:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            failed = pool.submit(get_agent_loop, "nobody").exception()
        assert isinstance(failed, AgentLoopNotFoundError)
        assert (failed.name, failed.available) == ("nobody", [])


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 599])
def test_these_statuses_are_worth_another_try(status: int) -> None:
    assert is_retryable_status(status)


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 409, 410, 413, 422, 499])
def test_these_statuses_are_final(status: int) -> None:
    assert not is_retryable_status(status)
