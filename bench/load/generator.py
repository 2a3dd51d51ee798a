"""Sends the inits: at a concurrency, or at a rate; one run at a time, in the process and event loop it is made in."""

import asyncio
import time
from collections import deque
from itertools import count
from typing import Self

from bench.load.http1 import Connection, closes, request, status_of
from bench.load.script import Script
from bench.load.tally import Tally
from bench.load.trainer import Trainer, TrainerConnection

LOOPBACK = "127.0.0.1"
INIT_PATH = b"/v1/rollout/init"
ACCEPTED = 202
SENDERS = 32
"""Connections that carry inits; each waits for its 202 before the next."""
STALLED_SECONDS = 60.0
"""Without any rollout ending, a run is over and what is under way is lost."""
BACKLOG = 8192

_run_numbers = count(1)


class Generator:
    """The load of one server, from entry to exit.

    Args:
        port: of the server, on loopback.
        api_key: sent with each init.
        turns, reply_bytes: see ``Script``.
        chat_delay_seconds: the time the model takes for a reply.
        repeat_inits: send each init twice at the same time; the rollout must run once all the same.
    """

    def __init__(
        self,
        port: int,
        api_key: str,
        *,
        turns: int,
        reply_bytes: int | None = None,
        chat_delay_seconds: float = 0.0,
        repeat_inits: bool = False,
    ) -> None:
        self._port = port
        self._api_key = api_key
        self._turns = turns
        self._sizes = {} if reply_bytes is None else {"reply_bytes": reply_bytes}
        self._chat_delay_seconds = chat_delay_seconds
        self._repeat_inits = repeat_inits
        self._numbers = count(1_000_000)
        self._server: asyncio.Server | None = None
        self._senders: list[_Sender] = []
        self._idle: list[_Sender] = []
        self._waiting: deque[tuple[bytes, bytes]] = deque()
        self._trainer: Trainer | None = None
        self._script: Script | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self._resent: set[bytes] = set()
        self._num_senders = 0
        self._inits_under_way = 0
        self._changed = asyncio.Event()
        self._left_to_start = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: TrainerConnection(self._current), LOOPBACK, 0, backlog=BACKLOG)
        port = self._server.sockets[0].getsockname()[1]
        self._script = Script(
            self._turns, f"http://{LOOPBACK}:{port}", f"bench-{port}-{next(_run_numbers)}", **self._sizes
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for sender in list(self._senders):
            sender.close()
        if self._server is not None:
            self._server.close()

    async def run(self, rollouts: int, concurrency: int) -> Tally:
        """Keep ``concurrency`` rollouts in flight until ``rollouts`` of them have ended."""
        trainer = self._begin(rollouts)
        for _ in range(min(rollouts, concurrency)):
            self._start_next()
        await self._until_ended(trainer)
        return trainer.tally

    async def run_at_rate(self, rollouts: int, per_second: float) -> Tally:
        """Start ``rollouts``, evenly spaced, whatever becomes of them; wait until all have ended."""
        trainer = self._begin(0)
        started = time.perf_counter()
        for number in range(rollouts):
            await asyncio.sleep(started + number / per_second - time.perf_counter())
            self._start(trainer)
        await self._until_ended(trainer)
        return trainer.tally

    def _begin(self, rollouts: int) -> Trainer:
        if self._script is None:
            raise RuntimeError("A generator is used inside its context.")
        self._left_to_start = rollouts
        self._trainer = Trainer(self._script, self._chat_delay_seconds, self._on_end)
        return self._trainer

    def _current(self) -> Trainer:
        if self._trainer is None:
            raise RuntimeError("A call to the trainer before the first rollout.")
        return self._trainer

    def _on_end(self) -> None:
        self._start_next()
        self._wake_if_over()

    def _wake_if_over(self) -> None:
        if self._is_over(self._current()):
            self._changed.set()

    def _start_next(self) -> None:
        if self._left_to_start:
            self._left_to_start -= 1
            self._start(self._current())

    def _start(self, trainer: Trainer) -> None:
        number = next(self._numbers)
        rollout_id = trainer.expect(number)
        body = self._request(number)
        for _ in range(2 if self._repeat_inits else 1):
            self._send(rollout_id, body)
        trainer.tally.repeats += self._repeat_inits

    def _request(self, number: int) -> bytes:
        return request(INIT_PATH, self._current().script.init(number), self._api_key)

    def _send(self, rollout_id: bytes, body: bytes) -> None:
        while self._idle:
            sender = self._idle.pop()
            if sender.is_open:
                self._inits_under_way += 1
                sender.send(rollout_id, body)
                return
            self._num_senders -= 1
        if self._num_senders < SENDERS:
            self._num_senders += 1
            self._inits_under_way += 1
            task = asyncio.create_task(self._send_on_new_connection(rollout_id, body))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        else:
            self._waiting.append((rollout_id, body))

    async def _send_on_new_connection(self, rollout_id: bytes, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, sender = await loop.create_connection(lambda: _Sender(self), LOOPBACK, self._port)
        self._senders.append(sender)
        sender.send(rollout_id, body)

    async def _until_ended(self, trainer: Trainer) -> None:
        ended = -1
        while not self._is_over(trainer):
            self._changed.clear()
            try:
                async with asyncio.timeout(STALLED_SECONDS + self._chat_delay_seconds):
                    await self._changed.wait()
            except TimeoutError:
                if trainer.num_ended == ended:
                    self._left_to_start = 0
                    for rollout_id in list(trainer.rollouts):
                        trainer.give_up(rollout_id, "a rollout that did not end")
                    return
            ended = trainer.num_ended

    def _is_over(self, trainer: Trainer) -> bool:
        return not (trainer.rollouts or self._left_to_start or self._waiting or self._inits_under_way)

    def answered(self, sender: "_Sender", rollout_id: bytes, head: bytes, body: bytes) -> None:
        """A sender has the answer to its init."""
        if status_of(head) != ACCEPTED or rollout_id not in body or b'"tools"' not in body:
            self._current().give_up(rollout_id, f"an init answered {status_of(head)}: {body[:120]!r}")
        self._inits_under_way -= 1
        if closes(head):
            self._num_senders -= 1
            sender.close()
        else:
            self._idle.append(sender)
        self._after_init()

    def broken(self, sender: "_Sender", rollout_id: bytes) -> None:
        """A sender's connection was closed; ``rollout_id`` is that of its init, if one was under way."""
        self._senders.remove(sender)
        if not rollout_id:
            return
        self._num_senders -= 1
        self._inits_under_way -= 1
        rollout = self._current().rollouts.get(rollout_id)
        if rollout is not None and rollout_id not in self._resent:
            # A server may close an idle connection at any time; an init may be sent again.
            self._resent.add(rollout_id)
            self._send(rollout_id, self._request(rollout.number))
        elif rollout is not None:
            self._current().give_up(rollout_id, "an init without an answer")
        self._after_init()

    def _after_init(self) -> None:
        if self._waiting:
            self._send(*self._waiting.popleft())
        self._wake_if_over()


class _Sender(Connection):
    """One connection to the server; carries one init at a time."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self._generator = generator
        self._rollout_id = b""

    def send(self, rollout_id: bytes, body: bytes) -> None:
        self._rollout_id = rollout_id
        self.write(body)

    def message_received(self, head: bytes, body: bytes) -> None:
        rollout_id, self._rollout_id = self._rollout_id, b""
        self._generator.answered(self, rollout_id, head, body)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._generator.broken(self, self._rollout_id)
