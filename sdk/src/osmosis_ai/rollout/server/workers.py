"""``--workers N``: processes that share one port and one journal, and a supervisor that keeps them running.

The supervisor serves nothing. It starts the workers with the listening socket, starts one anew that has died (its
rollouts are taken up from the journal), passes the drain on, and waits for it. Workers are in a process group of their
own, so that Ctrl-C reaches them once, through the supervisor; one whose supervisor has died ends at once, as by
kill -9, so that nothing holds the port and the next server finds everything in the journal.

``python -m osmosis_ai.rollout.server.workers LISTENER_FD SUPERVISOR_FD MEMORY_FD COUNT INDEX`` is one worker.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from osmosis_ai.rollout.core.settings import RolloutServerSettings
from osmosis_ai.rollout.observe.exposition import WorkerMetrics, worker_metrics
from osmosis_ai.rollout.server.plan import PLAN_VARIABLE, Plan
from osmosis_ai.rollout.server.siblings import ABSENT, Siblings, join, shared_memory

logger = logging.getLogger("uvicorn.error")

POLL_SECONDS = 0.1
RESTART_DELAY_SECONDS = 1.0
"""Before a worker is started anew that lived for less than ``SHORT_LIFE_SECONDS``; doubled each time."""
MAX_RESTART_DELAY_SECONDS = 30.0
SHORT_LIFE_SECONDS = 10.0
SAME_SIGNAL_SECONDS = 1.0

_MODULE = "osmosis_ai.rollout.server.workers"
_SHARED_LIMITS = ("max_concurrent_rollouts", "max_queued_rollouts", "max_total_rollouts")


@dataclass
class _Worker:
    process: "subprocess.Popen[bytes]"
    index: int
    started_at: float


class Supervisor:
    """Runs ``count`` workers on ``listener`` until SIGTERM or Ctrl-C; a second signal ends them without a drain.

    Args:
        options: uvicorn's, as JSON.
    """

    def __init__(self, plan: Plan, count: int, listener: socket.socket, options: dict[str, Any]) -> None:
        self._plan = replace(plan, settings=_share_of(plan, count), options=options)
        self._count = count
        self._listener = listener
        self._workers: list[_Worker] = []
        self._metrics: WorkerMetrics
        self._early_deaths = 0
        self._next_start_at = 0.0
        self._signals = 0
        self._signalled_at = 0.0

    def run(self) -> int:
        """Supervise; gives the exit code: 0 after a drain, 1 if no worker could start."""
        import uvicorn

        uvicorn.Config("", **self._plan.options)  # sets up logging as in the workers
        # Never written to: it closes when this process ends, however it ends.
        alive_reader, alive_writer = os.pipe()
        memory = shared_memory(self._count)
        self._siblings = Siblings(memory, self._count)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            with worker_metrics() as self._metrics:
                return self._supervise((self._listener.fileno(), alive_reader, memory))
        finally:
            for worker in self._workers:
                # After a drain there is none; this is for a failure of the supervisor's own.
                worker.process.kill()
            for descriptor in (alive_writer, alive_reader, memory):
                os.close(descriptor)

    def _supervise(self, descriptors: tuple[int, ...]) -> int:
        self._workers = [self._start(descriptors, index) for index in range(self._count)]
        logger.info("Serving with %d workers; supervisor process [%d].", self._count, os.getpid())
        while self._signals == 0:
            time.sleep(POLL_SECONDS)
            for worker in [worker for worker in self._workers if worker.process.poll() is not None]:
                self._workers.remove(worker)
                # Or it would look idle for ever, and the others would shed their connections.
                self._siblings.note(ABSENT, worker.index)
                if self._signals == 0:
                    self._note_death(worker)
            # All died young: the app cannot be loaded, say, and the next would fare no better.
            if not self._workers and self._early_deaths >= self._count:
                logger.error("No worker can serve; giving up.")
                return 1
            if len(self._workers) < self._count and time.monotonic() >= self._next_start_at and self._signals == 0:
                index = min(set(range(self._count)) - {worker.index for worker in self._workers})
                self._workers.append(self._start(descriptors, index))
        return self._drain()

    def _start(self, descriptors: tuple[int, ...], index: int) -> _Worker:
        numbers = [str(number) for number in (*descriptors, self._count, index)]
        process = subprocess.Popen(  # noqa: S603 - this very interpreter, with numbers
            [sys.executable, "-m", _MODULE, *numbers],
            env=os.environ | {PLAN_VARIABLE: self._plan.to_json()},
            pass_fds=descriptors,
            process_group=0,
        )
        return _Worker(process, index, time.monotonic())

    def _note_death(self, worker: _Worker) -> None:
        lived_seconds = time.monotonic() - worker.started_at
        self._early_deaths = self._early_deaths + 1 if lived_seconds < SHORT_LIFE_SECONDS else 0
        delay_seconds = 0.0
        if self._early_deaths:
            delay_seconds = min(RESTART_DELAY_SECONDS * 2 ** (self._early_deaths - 1), MAX_RESTART_DELAY_SECONDS)
        self._next_start_at = time.monotonic() + delay_seconds
        self._metrics.ended(worker.process.pid)
        logger.error("Worker [%d] has died (exit code %d).", worker.process.pid, worker.process.returncode)

    def _drain(self) -> int:
        passed_on = 0
        while any(worker.process.poll() is None for worker in self._workers):
            if passed_on < self._signals:
                passed_on = self._signals
                for worker in self._workers:
                    if worker.process.poll() is None:
                        worker.process.send_signal(signal.SIGTERM)
            time.sleep(POLL_SECONDS)
        return 0

    def _on_signal(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self._signals and now - self._signalled_at < SAME_SIGNAL_SECONDS:
            return
        self._signals += 1
        self._signalled_at = now


def _share_of(plan: Plan, count: int) -> Any:
    """The settings of one worker: the limits on rollouts are the server's, so each has a part, rounded up."""
    server = plan.settings.server
    parts = {name: -(-getattr(server, name) // count) for name in _SHARED_LIMITS}
    share: RolloutServerSettings = server.model_copy(update=parts)
    return plan.settings.model_copy(update={"server": share})


def main() -> None:
    """Serve on the inherited socket until SIGTERM, or until the supervisor is gone."""
    import uvicorn

    listener, alive_reader, memory, count, index = (int(argument) for argument in sys.argv[1:6])

    def end_with_supervisor() -> None:
        os.read(alive_reader, 1)  # returns as soon as the supervisor's end is closed
        os._exit(1)

    threading.Thread(target=end_with_supervisor, name="osmosis-supervisor", daemon=True).start()
    join(Siblings(memory, count, index))
    os.close(memory)
    plan = Plan.from_environment()
    with socket.socket(fileno=listener) as bound:
        uvicorn.Server(uvicorn.Config(plan.app(), **plan.options)).run(sockets=[bound])


if __name__ == "__main__":
    main()
