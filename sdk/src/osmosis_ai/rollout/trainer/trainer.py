"""The trainer as a library: dispatches rollouts, serves their chat calls, takes their results.

::

    async with Trainer(complete, server_url="http://127.0.0.1:9000", server_api_key=key) as trainer:
        outcome = await trainer.run_one(request)                  # one rollout
        await trainer.run(requests, on_outcome=outcomes.append)   # many, taken as there is room
        outcomes = await trainer.run_again(request, policy)       # one, and again under a new id where it failed

Every rollout that is opened ends in one ``RolloutOutcome``, whatever the server does. All three ways share one bound:
at most ``TrainerLimits.concurrency`` rollouts are in flight.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx
from starlette.types import ASGIApp

from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.core.text import sendable_key
from osmosis_ai.rollout.core.window import run_window
from osmosis_ai.rollout.trainer import defaults
from osmosis_ai.rollout.trainer.book import Delivery, Rollout, RolloutBook
from osmosis_ai.rollout.trainer.callback_http import callbacks
from osmosis_ai.rollout.trainer.completions import ChatEndpoint
from osmosis_ai.rollout.trainer.dispatch import Dispatcher
from osmosis_ai.rollout.trainer.errors import InitRefusedError, TrainerError
from osmosis_ai.rollout.trainer.fetching import Fetcher, StartDialect
from osmosis_ai.rollout.trainer.groups import Groups
from osmosis_ai.rollout.trainer.line import ServerLine
from osmosis_ai.rollout.trainer.listener import Listener, bind_socket, url_of
from osmosis_ai.rollout.trainer.outcomes import outcome_of
from osmosis_ai.rollout.trainer.sink import CompletionSink
from osmosis_ai.rollout.trainer.tries import id_of_try
from osmosis_ai.rollout.trainer.vocabulary import (
    Completer,
    Ending,
    RedispatchPolicy,
    RetryPolicy,
    RolloutOutcome,
    TrainerLimits,
)
from osmosis_ai.rollout.trainer.weights import Weights
from osmosis_ai.rollout.trainer.withdrawals import Withdrawals
from osmosis_ai.rollout.wire.loopback import LoopbackGuard
from osmosis_ai.rollout.wire.paths import CHAT_PATH, COMPLETED_PATH

CALLBACK_KEY_BYTES = 32

_LEFT = "The trainer was left: what it runs ends with its 'async with'."


class Trainer:
    """One trainer against one rollout server. Use it as an async context manager, once.

    Args:
        complete: generates the messages; see ``completer_of`` for an ``LLMClientProtocol``.
        server_url: base URL of the rollout server.
        server_api_key: that server's own key, sent on inits; a line break around it is none of it.
        host: where the callbacks are served.
        port: the same; 0 means any free one.
        callback_url: the same address as the rollout server sees it; by default ``http://host:port``.
        protocol: the generation that the server is spoken to in: ``"0.2"``, or ``"0.3"`` (``docs/protocol-0.3.md``).

    Raises:
        ValueError: there is no such protocol, no header can carry the key, or ``concurrency`` is below 1.
        TrainerError: on entry, if the address cannot be listened on.
        RuntimeError: it is entered a second time, or used outside of its ``async with``.
    """

    def __init__(
        self,
        complete: Completer,
        *,
        server_url: str,
        server_api_key: str | None = None,
        host: str = defaults.CALLBACK_HOST,
        port: int = 0,
        callback_url: str | None = None,
        limits: TrainerLimits | None = None,
        retry: RetryPolicy | None = None,
        protocol: str = defaults.PROTOCOL,
    ) -> None:
        if protocol not in defaults.PROTOCOLS:
            raise ValueError(f"There is no protocol {protocol!r}: give one of {', '.join(defaults.PROTOCOLS)}.")
        self._pulls = protocol != defaults.PROTOCOL
        self._fetcher: Fetcher | None = None
        self._complete = complete
        self._server_url = server_url.rstrip("/")
        self._server_api_key = sendable_key(server_api_key, "server_api_key") if server_api_key else None
        self._host = host
        self._port = port
        self._given_callback_url = callback_url
        self._limits = limits or TrainerLimits()
        self._retry = retry or RetryPolicy()
        self._callback_key = secrets.token_urlsafe(CALLBACK_KEY_BYTES)
        self._book = RolloutBook()
        self.weights = Weights()
        self._resources = AsyncExitStack()
        if self._limits.concurrency < 1:
            raise ValueError(f"concurrency must be 1 or more, got {self._limits.concurrency}.")
        self._room = asyncio.Semaphore(self._limits.concurrency)
        self._is_entered = self._is_left = self._is_updating = False

    @property
    def contradictions(self) -> int:
        """Terminal callbacks that contradicted an earlier one of the same rollout."""
        return self._book.deliveries[Delivery.CONTRADICTED]

    @property
    def repeated_results(self) -> int:
        """Terminal callbacks that repeated one of the same rollout; each was acknowledged and dropped."""
        return self._book.deliveries[Delivery.REPEATED]

    @property
    def late_results(self) -> int:
        """Terminal callbacks that came after the trainer had given up."""
        return self._book.deliveries[Delivery.LATE]

    async def __aenter__(self) -> Self:
        if self._is_entered:
            raise RuntimeError("A Trainer is entered once: make another.")
        self._is_entered = True
        listening_socket = bind_socket(self._host, self._port)
        self.callback_url = self._given_callback_url or url_of(self._host, listening_socket.getsockname()[1])
        guard = LoopbackGuard([self._host, urlsplit(self.callback_url).hostname])
        await self._resources.enter_async_context(Listener(guard.before(self._app()), listening_socket))
        line = ServerLine(self._server_url, self._server_api_key, self._limits.concurrency)
        self._resources.push_async_callback(line.close)
        if self._pulls:
            self._fetcher = Fetcher(self._server_url, self._server_api_key, self._book, self._limits.max_body_bytes)
            self._resources.push_async_callback(self._fetcher.close)
        self._dispatcher = Dispatcher(line, self._retry, StartDialect(self.callback_url) if self._pulls else None)
        self._withdrawals = Withdrawals(line, self._book, is_polled=self._pulls)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_left = True
        await self._withdrawals.close()
        await self._resources.aclose()

    def _app(self) -> ASGIApp:
        chat = ChatEndpoint(self._book, self._complete, self._callback_key, self._limits, self.weights)
        if self._pulls:
            return callbacks(chat.of_path)
        sink = CompletionSink(self._book, self._callback_key, self._limits)
        return callbacks({CHAT_PATH: chat.handle, COMPLETED_PATH: sink.handle}.get)

    async def check_server(self) -> None:
        """Make sure that something speaks HTTP at the server's address.

        Raises:
            TrainerError: if nothing does.
        """
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=self._retry.attempt_timeout_seconds) as client:
                await client.get(f"{self._server_url}/health")
        except httpx.HTTPError as error:
            raise TrainerError(
                f"No rollout server answers at {self._server_url} ({str(error) or type(error).__name__}):"
                " start it with 'osmosis serve', or check the address."
            ) from error

    async def run(self, requests: Iterable[RolloutRequest], on_outcome: Callable[[RolloutOutcome], None]) -> str | None:
        """Run every request, at most ``TrainerLimits.concurrency`` at a time, taking them from ``requests`` as needed.

        ``on_outcome`` gets each outcome when it comes. Stops early, once those in flight have ended, when the server
        will accept no rollout at all, or the trainer is left, and returns the reason; ``None`` means that every request
        was run.
        """
        stop_reasons: list[str] = []

        async def work(request: RolloutRequest) -> bool:
            outcome = await self.run_one(request)
            if outcome.is_systemic and outcome.problem:
                stop_reasons.append(outcome.problem)
            on_outcome(outcome)
            if self._is_left:
                stop_reasons.append(_LEFT)
            return not stop_reasons

        await run_window(requests, work, self._limits.concurrency)
        return stop_reasons[0] if stop_reasons else None

    async def run_one(self, request: RolloutRequest) -> RolloutOutcome:
        """Run one rollout to its end. ``server_url``, ``api_key`` and a missing idempotency key are filled in.

        Waits for room first; that time counts for no limit.

        Raises:
            ValueError: if the request's ``rollout_id`` was used before.
            RuntimeError: outside of the trainer's ``async with``.
        """
        self._require_entered()
        if self._is_left:
            raise RuntimeError(_LEFT)
        rollout = self._book.open(self._addressed(request))
        try:
            # A rollout that is cancelled while it waits for room takes none, and is not sent.
            async with asyncio.timeout(None) as rollout.patience:
                await self._room.acquire()
        except BaseException as error:
            self._book.close(rollout)
            if isinstance(error, TimeoutError) and rollout.is_cancelled:
                return outcome_of(rollout, Ending.CANCELLED, None, 0.0)
            raise
        try:
            return await self._run(rollout)
        finally:
            self._room.release()

    def _require_entered(self) -> None:
        if not self._is_entered:
            raise RuntimeError("A Trainer is used within its 'async with'.")

    def _addressed(self, request: RolloutRequest) -> RolloutRequest:
        return request.model_copy(
            update={
                "server_url": self.callback_url,
                "api_key": self._callback_key,
                "idempotency_key": request.idempotency_key or request.rollout_id,
            }
        )

    async def run_again(
        self,
        request: RolloutRequest,
        policy: RedispatchPolicy,
        on_outcome: Callable[[RolloutOutcome], None] = lambda outcome: None,
    ) -> list[RolloutOutcome]:
        """Run one rollout, and a new one under a new id while it fails; the outcomes of all attempts in their order.

        ``on_outcome`` gets each of them when it comes.

        A rollout cut off half-way is never continued: its agent's state is gone, so a new attempt starts from the
        request's messages, and whatever was generated for the old one belongs to the old id.

        Raises:
            ValueError: if an id was used before, or the request's ends like that of a further try, ``..2``.
        """
        outcomes: list[RolloutOutcome] = []
        attempt = request
        while True:
            next_id = id_of_try(request.rollout_id, len(outcomes) + 2)
            outcomes.append(await self.run_one(attempt))
            on_outcome(outcomes[-1])
            is_final = outcomes[-1].outcome not in policy.outcomes or len(outcomes) >= policy.max_attempts
            if is_final or self._is_left:
                return outcomes
            attempt = request.model_copy(update={"rollout_id": next_id, "idempotency_key": None})

    @property
    def weights_version(self) -> int:
        """How many `weights_update` there were."""
        return self.weights.version

    @asynccontextmanager
    async def weights_update(self) -> AsyncIterator[None]:
        """Change the policy's weights: ``async with trainer.weights_update(): ...``.

        Entering waits for the calls that are being generated; until the exit all others wait, and no rollout fails for
        it: a call waits 5 s and then gets a 503, with which a server asks again until its deadline for a call, twenty
        minutes by default, and ``rollout_timeout_seconds`` stands still. One update at a time; another waits. What the
        block raises is raised, and counts as none.

        Raises:
            RuntimeError: it is entered within itself.
        """
        async with self.weights.update():
            self._is_updating = True
            for rollout in self._book.in_flight(lambda rollout_id: True):
                rollout.hold_patience()
            try:
                yield
            finally:
                self._is_updating = False
                for rollout in self._book.in_flight(lambda rollout_id: True):
                    rollout.resume_patience()

    async def cancel(
        self, rollout_ids: Collection[str] = (), *, prefix: str | None = None, everything: bool = False
    ) -> int:
        """End rollouts as CANCELLED: those named, those whose ids begin with ``prefix``, or all.

        Whoever awaits one has its outcome at once, what is being generated for it is cancelled, and the server is told;
        this returns when it has been told, or cannot be. One that waits for room is never sent.
        Ids that are neither are passed over.

        Cancelling the task that awaits ``run_one``, as ``asyncio.timeout`` does, does the same for its rollout, but for
        the outcome, which nobody is there to have.

        Returns:
            How many were cancelled.
        """
        self._require_entered()
        named = {rollout_ids} if isinstance(rollout_ids, str) else frozenset(rollout_ids)
        count = self._withdrawals.cancel(
            lambda rollout_id: (
                everything or rollout_id in named or (prefix is not None and rollout_id.startswith(prefix))
            )
        )
        await self._withdrawals.told()
        return count

    def groups(
        self,
        problems: Iterable[RolloutRequest],
        size: int,
        *,
        per_update: int,
        max_lag: int = 1,
        redispatch: RedispatchPolicy | None = None,
    ) -> Groups:
        """``size`` samples of each problem, a group handed over when it is whole: see `Groups`.

        Args:
            problems: taken as there is room for them.
            per_update: groups taken between two `weights_update`.
            max_lag: updates that may lie between a group's start and its hand-over; 0 runs and trains in turn.
            redispatch: when a sample that failed is run again.

        Raises:
            ValueError: a number is too small.
        """
        return Groups(self, problems, size, per_update, max_lag, redispatch or RedispatchPolicy())

    async def note_restart(self, grace_seconds: float) -> None:
        """Tell that the server was started again: what it had accepted and does not report in time is LOST.

        A server with a journal reports the rollouts it lost as ERROR right after its start; one without cannot.
        """
        accepted_before = self._book.running()
        if not accepted_before:
            return
        ends = [asyncio.ensure_future(rollout.ended.wait()) for rollout in accepted_before]
        try:
            await asyncio.wait(ends, timeout=grace_seconds)
        finally:
            for end in ends:
                end.cancel()
        for rollout in accepted_before:
            if not rollout.ended.is_set():
                rollout.is_lost = True
                rollout.abandon()

    async def _run(self, rollout: Rollout) -> RolloutOutcome:
        rollout.is_sent = True
        started_seconds = time.monotonic()
        problem, is_systemic = None, False
        ending = Ending.TIMED_OUT
        waited_in_vain = True
        try:
            async with asyncio.timeout(self._limits.rollout_timeout_seconds) as rollout.patience:
                if self._is_updating:
                    rollout.hold_patience()
                await self._dispatcher.dispatch(rollout)
                if self._fetcher is not None:
                    await self._fetcher.fetch(rollout)
                await rollout.ended.wait()
            waited_in_vain = False
        except TimeoutError:
            timeout_seconds = self._limits.rollout_timeout_seconds
            problem = f"No result within {timeout_seconds:g} s; still waiting for {rollout.waiting_for}."
        except InitRefusedError as error:
            ending, problem, is_systemic = Ending.REFUSED, str(error), error.systemic
            waited_in_vain = False
        finally:
            rollout.patience = None
            self._book.close(rollout)
            if waited_in_vain and not rollout.is_cancelled:
                self._withdrawals.withdraw(rollout)
        return outcome_of(rollout, ending, problem, time.monotonic() - started_seconds, is_systemic=is_systemic)
