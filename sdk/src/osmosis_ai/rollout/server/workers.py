"""``--workers N``: processes that share one port and one journal, and a supervisor that keeps them running.

The supervisor serves nothing. It starts the workers with the listening socket, starts one anew that has died (its
rollouts are taken up from the journal), passes the drain on, and waits for it, but not for ever. It gives up only if no
worker has ever served. Workers are in a process group of their own, so that Ctrl-C reaches them once, through the
supervisor; one whose supervisor has died ends at once, as by kill -9, so that nothing holds the port and the next
server finds everything in the journal.

A worker whose event loop does not come round (stopped, or blocked beyond what its watchdog can end) is told in the log
after ``SILENT_SECONDS``, and killed when each of its rollouts must be past its limit: from then on waiting is worse.
So is one that does not begin to serve (an import that hangs), when it has taken far longer than others.

``python -m osmosis_ai.rollout.server.workers LISTENER_FD SUPERVISOR_FD MEMORY_FD COUNT INDEX FOLDER`` is one worker.
"""

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.core.settings import RolloutServerSettings
from osmosis_ai.rollout.observe.exposition import WorkerMetrics, worker_metrics
from osmosis_ai.rollout.server import relay
from osmosis_ai.rollout.server.plan import PLAN_VARIABLE, Plan
from osmosis_ai.rollout.server.siblings import SILENT_SECONDS, Siblings, join, shared_memory
from osmosis_ai.rollout.server.signals import DRAIN_SIGNALS, EXIT_SECONDS, HANGUP, Heard

logger = logging.getLogger("uvicorn.error")

POLL_SECONDS = 0.1
RESTART_DELAY_SECONDS = 1.0
"""Before a worker is started anew that lived for less than ``SHORT_LIFE_SECONDS``; doubled each time."""
MAX_RESTART_DELAY_SECONDS = 30.0
SHORT_LIFE_SECONDS = 10.0
KILL_MARGIN_SECONDS = EXIT_SECONDS + 2.0
"""Beyond drain and flush, before a worker is killed: it ends itself sooner, if it can."""
SILENT_MARGIN_SECONDS = 60.0
"""Beyond the limit of a run, before a worker is killed whose event loop does not come round."""
SLOW_START_SECONDS = 15.0
"""After which a worker that does not serve yet is told of."""
START_LIMIT_SECONDS = 60.0
"""The least after which it is killed, and that only where another has served: what all need, an agent may need."""
START_LIMIT_FACTOR = 5.0
"""The same in starts of the slowest that has served."""

_MODULE = "osmosis_ai.rollout.server.workers"
_SHARED_LIMITS = ("max_concurrent_rollouts", "max_queued_rollouts", "max_total_rollouts")


@dataclass
class _Worker:
    process: "subprocess.Popen[bytes]"
    index: int
    started_at: float
    is_silent: bool = False
    is_slow: bool = False
    has_served: bool = False
    is_killed: bool = False


class Supervisor:
    """Runs ``count`` workers on ``listener`` until SIGTERM, Ctrl-C or SIGHUP; a second ends them without a drain.

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
        self._has_served = False
        self._slowest_start_seconds = 0.0
        self._heard = Heard()
        limits = self._plan.settings.server
        self._drain_limit_seconds = limits.drain_seconds + limits.flush_seconds + KILL_MARGIN_SECONDS
        self._silence_limit_seconds = limits.request_timeout_seconds + SILENT_MARGIN_SECONDS

    def run(self) -> str | None:
        """Supervise until a drain is over; gives what went wrong, in a sentence."""
        import uvicorn

        uvicorn.Config("", **self._plan.options)  # sets up logging as in the workers
        # Never written to: it closes when this process ends, however it ends.
        alive_reader, alive_writer = os.pipe()
        memory = shared_memory(self._count)
        self._folder = Path(tempfile.mkdtemp(prefix="osmosis-", dir=relay.short_folder()))
        self._siblings = Siblings(memory, self._count)
        for number in (*DRAIN_SIGNALS, HANGUP):
            # Under nohup a terminal that closes is nothing to us.
            if number is not None and (number != HANGUP or signal.getsignal(number) is signal.SIG_DFL):
                signal.signal(number, lambda number, frame: self._heard.note(number))
        try:
            with worker_metrics() as self._metrics:
                return self._supervise((self._listener.fileno(), alive_reader, memory))
        finally:
            for worker in self._workers:
                # After a drain there is none; this is for a failure of the supervisor's own.
                worker.process.kill()
            for descriptor in (alive_writer, alive_reader, memory):
                os.close(descriptor)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _supervise(self, descriptors: tuple[int, ...]) -> str | None:
        self._workers = [self._start(descriptors, index) for index in range(self._count)]
        logger.info("Serving with %d workers; supervisor process [%d].", self._count, os.getpid())
        before = time.monotonic()
        while self._heard.first_at is None:
            time.sleep(POLL_SECONDS)
            now = time.monotonic()
            self._look_after(now, now - before)
            before = now
            for worker in [worker for worker in self._workers if worker.process.poll() is not None]:
                self._workers.remove(worker)
                # Or it would look idle for ever, and the others would shed their connections.
                self._siblings.clear(worker.index)
                if self._heard.first_at is None:
                    self._note_death(worker)
            # The app cannot be loaded, say, and the next would fare no better.
            if not self._workers and self._early_deaths >= self._count and not self._has_served:
                logger.error("No worker can serve; giving up.")
                return "No worker could serve; the reason stands above."
            if len(self._workers) < self._count and now >= self._next_start_at and self._heard.first_at is None:
                index = min(set(range(self._count)) - {worker.index for worker in self._workers})
                self._workers.append(self._start(descriptors, index))
        return self._drain()

    def _look_after(self, now: float, passed_seconds: float) -> None:
        """Note who serves and who does not answer; ``passed_seconds`` since the last time."""
        for worker in self._workers:
            beat_at = self._siblings.beat_at(worker.index)
            if beat_at == 0.0:
                self._look_at_start(worker, now - worker.started_at)
                continue
            if not worker.has_served:
                worker.has_served = self._has_served = True
                self._slowest_start_seconds = max(self._slowest_start_seconds, beat_at - worker.started_at)
            silent_seconds = now - beat_at
            if silent_seconds < SILENT_SECONDS or passed_seconds >= SILENT_SECONDS:
                # Or we ourselves were stopped, and the worker with us.
                worker.is_silent = False
            elif not worker.is_silent:
                worker.is_silent = True
                logger.error(
                    "Worker [%d] has not come round for %.0f s: it is stopped, or something blocks its event loop. "
                    "Connections go to the others.",
                    worker.process.pid,
                    silent_seconds,
                )
            elif silent_seconds >= self._silence_limit_seconds:
                self._kill(worker, f"has not come round for {silent_seconds:.0f} s")

    def _look_at_start(self, worker: _Worker, passed_seconds: float) -> None:
        limit_seconds = max(START_LIMIT_SECONDS, START_LIMIT_FACTOR * self._slowest_start_seconds)
        if self._has_served and passed_seconds > limit_seconds:
            self._kill(worker, f"has not begun to serve for {passed_seconds:.0f} s")
        elif passed_seconds > SLOW_START_SECONDS and not worker.is_slow:
            worker.is_slow = True
            logger.error(
                "Worker [%d] has not begun to serve for %.0f s: something holds up its start, or its agent's import.",
                worker.process.pid,
                passed_seconds,
            )

    def _kill(self, worker: _Worker, why: str) -> None:
        if worker.is_killed:
            return
        worker.is_killed = True
        logger.error("Worker [%d] %s: killed; what it ran is in the journal.", worker.process.pid, why)
        worker.process.kill()

    def _start(self, descriptors: tuple[int, ...], index: int) -> _Worker:
        numbers = [str(number) for number in (*descriptors, self._count, index)]
        process = subprocess.Popen(  # noqa: S603 - this very interpreter, with numbers
            [sys.executable, "-m", _MODULE, *numbers, str(self._folder)],
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

    def _drain(self) -> str | None:
        self._pass_on_signal()
        kill_at = time.monotonic() + self._drain_limit_seconds
        is_second_passed_on = False
        while any(worker.process.poll() is None for worker in self._workers):
            if self._heard.second_at is not None and not is_second_passed_on:
                is_second_passed_on = True
                self._pass_on_signal()
                kill_at = time.monotonic() + KILL_MARGIN_SECONDS
            if time.monotonic() >= kill_at:
                for worker in self._workers:
                    if worker.process.poll() is None:
                        self._kill(worker, "did not end in time")
                        worker.process.wait()
            time.sleep(POLL_SECONDS)
        # One that the signal met before it served had nothing to drain, and ended by the signal itself.
        failed = [
            worker
            for worker in self._workers
            if worker.process.returncode not in (0, -signal.SIGTERM) and self._siblings.beat_at(worker.index) != 0.0
        ]
        for worker in failed:
            logger.error("Worker [%d] ended with exit code %d.", worker.process.pid, worker.process.returncode)
        if failed:
            return (
                f"{len(failed)} of {self._count} workers ended without a drain; the next start reports what they ran."
            )
        return None

    def _pass_on_signal(self) -> None:
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGTERM)
                worker.process.send_signal(signal.SIGCONT)  # one that is stopped could not drain


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
    relay.join(relay.Relay(Path(sys.argv[6]), count, index))
    os.close(memory)
    plan = Plan.from_environment()
    with socket.socket(fileno=listener) as bound:
        uvicorn.Server(uvicorn.Config(plan.app(), **plan.options)).run(sockets=[bound])


if __name__ == "__main__":
    main()
