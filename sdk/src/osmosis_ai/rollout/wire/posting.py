"""POSTs of one rollout, each tried again until the trainer has decided, the attempts are used up or time is.

What comes after an answer, ``refusal`` says; every failure to get one is tried again; how long in between, ``backoff``
says. A trainer that updates its weights, or starts anew, says 503, or nobody is there, or its engine aborts the reply:
that is no failure of the call, and is not counted where nobody has set a count.
All attempts of one call carry one ``Idempotency-Key``, as a trainer may have acted on one whose reply was lost. See
``docs/protocol.md``, sections 4 and 5.
"""

import asyncio
import itertools
import os
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from osmosis_ai.rollout.core.base import ChatWatch
from osmosis_ai.rollout.core.consts import PACKAGE_VERSION, package_name
from osmosis_ai.rollout.core.exceptions import (
    OsmosisRolloutError,
    OsmosisTimeoutError,
    OsmosisTransportError,
)
from osmosis_ai.rollout.core.settings import RolloutClientSettings
from osmosis_ai.rollout.core.text import described, excerpt
from osmosis_ai.rollout.core.tracecontext import TRACE_HEADERS
from osmosis_ai.rollout.core.watch import NO_WATCH, PauseCause
from osmosis_ai.rollout.wire.addresses import check_callable, is_sendable
from osmosis_ai.rollout.wire.backoff import delay_seconds
from osmosis_ai.rollout.wire.channel import Reply, TrainerChannel
from osmosis_ai.rollout.wire.refusal import Then, after, error_of

T = TypeVar("T")

IDEMPOTENCY_HEADER = "Idempotency-Key"
_calls = itertools.count()
_process_prefix = ""


def new_call_id() -> str:
    """A value of ``IDEMPOTENCY_HEADER`` that no other call has, in this process or another; no secret."""
    global _process_prefix
    _process_prefix = _process_prefix or os.urandom(8).hex()
    return f"{_process_prefix}{next(_calls):08x}"


def _forget_prefix() -> None:
    global _process_prefix
    _process_prefix = ""


if hasattr(os, "register_at_fork"):  # a forked worker goes on counting where its parent stood
    os.register_at_fork(after_in_child=_forget_prefix)


class UnusableReplyError(Exception):
    """Raised by what reads a reply: ``failure`` is the call's, and ``then`` says what comes next.

    ``is_answered`` says whether the trainer has answered the call, so that to ask again is another one.
    """

    def __init__(self, failure: OsmosisRolloutError, then: Then, *, is_answered: bool = True) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.then = then
        self.is_answered = is_answered


class _Pause:
    """The time that one call waits for its trainer, told to ``watch`` as one pause however many attempts it takes.

    It lasts from the beginning of the first attempt that met it to the beginning of the first that did not.
    """

    def __init__(self, watch: ChatWatch) -> None:
        self._watch = watch
        self._began: float | None = None
        self._mark: Any = None

    def goes_on(self, cause: PauseCause, failure: Exception, attempt_started: float) -> None:
        if self._began is None:
            self._began = attempt_started
            self._mark = self._watch.pause_begins(cause, str(failure), time.perf_counter() - attempt_started)

    def ends(self, at: float, *, answered: bool) -> None:
        if self._began is not None:
            began, self._began = self._began, None
            self._watch.pause_ends(self._mark, at - began, time.perf_counter() - at, answered)


class Poster:
    """Posts to one trainer, with one key."""

    def __init__(
        self,
        channel: TrainerChannel,
        server_url: str,
        api_key: str | None,
        timeout_seconds: float,
        settings: RolloutClientSettings,
    ) -> None:
        self.finds_nobody = False
        self._channel = channel
        self._server_url = server_url
        self._api_key = api_key
        self._timeout_seconds = timeout_seconds
        self._settings = settings
        self._headers: dict[str, str] | None = None

    async def post(
        self,
        path: str,
        body: bytes,
        attempts: int,
        accepted: range,
        call_id: str,
        read: Callable[[Reply], T],
        *,
        only_status: bool = False,
        patient: bool = False,
        watch: ChatWatch = NO_WATCH,
    ) -> tuple[T, float]:
        """POST until a status in ``accepted``; give what ``read`` makes of the reply, and the latency of that attempt.

        Args:
            call_id: of the call. A reply that ``read`` refuses was given for good: what is asked then is another call,
                with an id of its own, or a trainer that keeps its promise would give the same again.
            read: of the reply with such a status; may raise ``UnusableReplyError``.
            patient: attempts that meet a pause of the trainer do not count; only the deadline bounds them.
            watch: told of such a pause, and asked before each attempt.

        Returns:
            The latency in milliseconds, of the last attempt alone: what a model took to answer, not what the trainer's
            troubles cost.

        Raises:
            OsmosisTransportError: at once, where URL or key cannot be used.
            OsmosisRolloutError: the last failure.
        """
        if self._headers is None:
            self._headers = self._own_headers()
        headers = self._headers.copy()
        if trace_headers := TRACE_HEADERS.get():
            headers.update(trace_headers)
        headers[IDEMPOTENCY_HEADER] = call_id
        url = self._server_url + path
        started = attempt_started = time.perf_counter()
        deadline = started + self._settings.call_deadline_seconds
        failure: OsmosisRolloutError | None = None
        cause: PauseCause | None = None
        pause: _Pause | None = None
        attempt = counted = 0
        try:
            while counted < attempts:
                if failure is not None:
                    left_seconds = deadline - time.perf_counter()
                    delay = delay_seconds(self._settings, attempt, failure, left_seconds)
                    if delay >= left_seconds:
                        break
                    await self._back_off(delay, is_alone=cause is PauseCause.UNREACHABLE)
                    attempt_started = time.perf_counter()
                if (doubt := watch.in_doubt()) is not None:
                    await doubt
                    attempt_started = time.perf_counter()
                attempt += 1
                try:
                    limit_seconds = min(self._timeout_seconds, deadline - attempt_started)
                    reply = await self._channel.post(url, body, headers, limit_seconds, only_status=only_status)
                    if reply.status_code in accepted:
                        answer = read(reply)
                        if pause is not None:
                            pause.ends(attempt_started, answered=True)
                        return answer, (time.perf_counter() - attempt_started) * 1000
                    failure = error_of(reply, _where(url, attempt, attempts, started), self._api_key)
                    then, cause = after(reply), PauseCause.REFUSED
                except UnusableReplyError as error:
                    failure, then, cause = error.failure, error.then, PauseCause.ABORTED
                    if error.is_answered:
                        headers[IDEMPOTENCY_HEADER] = new_call_id()
                except (httpx.RequestError, httpx.InvalidURL, TimeoutError) as error:
                    if failure is None or time.perf_counter() < deadline:
                        failure = self._failure_of(error, _where(url, attempt, attempts, started))
                    # else the deadline cut this attempt off: what came of those before it says more.
                    then, cause = _after(error), PauseCause.UNREACHABLE
                if then is Then.WAIT:
                    pause = pause or _Pause(watch)
                    pause.goes_on(cause, failure, attempt_started)
                else:
                    if pause is not None:
                        pause.ends(attempt_started, answered=True)
                    if then is Then.GIVE_UP:
                        break
                counted += not (patient and then is Then.WAIT)
            raise failure or OsmosisTransportError(f"No attempts made (POST {url}, {attempts} attempts allowed).")
        finally:
            if pause is not None:
                pause.ends(time.perf_counter(), answered=False)

    def _own_headers(self) -> dict[str, str]:
        try:
            check_callable(self._server_url)
        except ValueError as error:
            raise OsmosisTransportError(f"The trainer cannot be called: {error}.") from error
        # A User-Agent, as there are firewalls that refuse whoever has none.
        headers = {"Content-Type": "application/json", "User-Agent": f"{package_name}/{PACKAGE_VERSION}"}
        if self._api_key:
            if not is_sendable(self._api_key):
                raise OsmosisTransportError("The trainer cannot be called: api_key is not printable ASCII.")
            headers["Authorization"] = f"Bearer {self._api_key}"
        return headers

    def _failure_of(self, error: Exception, where: str) -> OsmosisRolloutError:
        failure: OsmosisRolloutError
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            failure = OsmosisTimeoutError(f"{excerpt(str(error) or type(error).__name__, self._api_key)} ({where})")
        else:
            failure = OsmosisTransportError(f"{excerpt(described(error), self._api_key)} ({where})")
        failure.__cause__ = error
        return failure

    async def _back_off(self, delay_seconds: float, *, is_alone: bool) -> None:
        self.finds_nobody = is_alone
        try:
            await asyncio.sleep(delay_seconds)
        finally:
            self.finds_nobody = False


def _where(url: str, attempt: int, attempts: int, started: float) -> str:
    number = f"{attempt} of {attempts}" if attempt <= attempts else f"{attempt}"
    return f"POST {url}, attempt {number}, {time.perf_counter() - started:.1f} s"


def _after(error: Exception) -> Then:
    if isinstance(error, httpx.InvalidURL):
        return Then.GIVE_UP
    return Then.WAIT if _nobody_is_there(error) else Then.COUNT


def _nobody_is_there(error: BaseException) -> bool:
    """Whether no connection came about; but a name that is unknown and a certificate that is wrong stay as they are."""
    if not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror | ssl.SSLError | UnicodeError):
            return False
        cause = cause.__cause__ or cause.__context__
    return True
