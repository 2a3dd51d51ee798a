"""``osmosis serve`` in a process of its own: killed, asked to stop, started anew on the same port and journal."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from support.faulty_trainer import FaultyTrainer
from support.plain_http import PLAIN

TESTS = Path(__file__).parents[1]
AGENT = "support.promise_agent:agent_loop"
DEADLINE_SECONDS = 60.0
POLL_SECONDS = 0.005

QUICK = {"CLIENT_RETRY_BASE_DELAY": "0.1", "CLIENT_RETRY_MAX_DELAY": "1", "SERVER_FLUSH_SECONDS": "1"}


class ServerProcess:
    """Started by ``start``, several times if need be; never outlives the ``with`` block.

    ``settings`` are variables without their prefix ``OSMOSIS_ROLLOUT_``, in addition to ``QUICK``; ``options`` those of
    ``osmosis serve``.
    """

    def __init__(self, journal: Path, settings: Mapping[str, str] | None = None, *options: str) -> None:
        self.journal = journal
        self.log = journal.with_suffix(".log")
        """What the server says on stderr, that of all its starts."""
        self._options = options
        self._environment = environment(QUICK | dict(settings or {}))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.client = httpx.Client(base_url=self.url, **PLAIN)
        self._process: subprocess.Popen[bytes] | None = None
        self.memory_limit_bytes: int | None = None
        """Of the address space of processes started from now on."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        self.client.close()

    def start(self, descriptors: int | None = None) -> None:
        """Start a process and wait until it is ready; with no more than ``descriptors``, if that says so."""
        options = ("--port", str(self._port), *self._options)
        with self.log.open("ab") as log:
            self._process = self._launch(*options, stderr=log.fileno())
        if descriptors is not None:  # long before it looks
            resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (descriptors, descriptors))
        if self.memory_limit_bytes is not None:
            resource.prlimit(self._process.pid, resource.RLIMIT_AS, (self.memory_limit_bytes, resource.RLIM_INFINITY))
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self.is_ready():
            assert self._process.poll() is None, "the server ended by itself"
            assert time.monotonic() < deadline, "the server did not get ready"
            time.sleep(POLL_SECONDS)

    def _launch(self, *options: str, stderr: int) -> "subprocess.Popen[bytes]":
        return start_serving(self.journal, *options, environment=self._environment, stderr=stderr)

    def is_ready(self) -> bool:
        if not listens(self._port):
            return False
        try:
            return self.client.get("/ready").is_success
        except httpx.TransportError:
            return False

    def drain(self) -> None:
        """SIGTERM, and wait until the server has noticed."""
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.is_ready():
            assert time.monotonic() < deadline, "the server did not notice the signal"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def exit_code(self) -> int:
        """Wait until the process has ended by itself."""
        assert self._process is not None
        return self._process.wait(DEADLINE_SECONDS)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait_for_line(self, text: str, *, times: int = 1) -> None:
        """Return once the log has a line that contains ``text``, or so many of them."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.log.read_text().count(text) < times:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(POLL_SECONDS)

    def accept_and_wait_for_it(self, trainer_url: str, rollout_id: str, do: str) -> None:
        """Return once the agent has had its first reply and is about to do what it is to do."""
        self.accept(trainer_url, **{rollout_id: do})
        self.wait_for_line(f"{rollout_id} does {do}\n")

    def memory_bytes(self, name: str) -> int:
        """A line of /proc/PID/status: ``VmSize`` the address space, ``VmRSS`` what is in memory, ``VmHWM`` its peak."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {name}")

    def limit_file_size(self, size_bytes: int) -> None:
        """As a full disk: no file may grow beyond ``size_bytes`` (``RLIM_INFINITY``: all may again)."""
        assert self._process is not None
        _, hard = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))

    def init(self, rollout_id: str, trainer_url: str, do: str = "complete", **fields: Any) -> httpx.Response:
        """Send an init, whatever the answer."""
        return self.client.post("/v1/rollout/init", json=init_of(rollout_id, trainer_url, do, **fields))

    def accept(self, trainer_url: str, **rollouts: str) -> None:
        """Send inits that must be accepted: rollout id and what it does."""
        for rollout_id, do in rollouts.items():
            response = self.init(rollout_id, trainer_url, do)
            assert response.status_code == 202, response.text

    def accept_and_hold(self, trainer: FaultyTrainer, **rollouts: str) -> None:
        """As ``accept``; return once each waits for the first reply of ``trainer``, until it releases chats."""
        trainer.hold_chats()
        self.accept(trainer.url, **rollouts)
        trainer.wait_for_chat(*rollouts)

    def state(self, rollout_id: str) -> str:
        """What the status endpoint says; ``unavailable`` where it cannot for now."""
        response = self.client.get(f"/v1/rollout/{rollout_id}")
        return "unavailable" if response.status_code == 503 else str(response.json()["state"])

    def wait_for_state(self, rollout_id: str, state: str) -> None:
        self._wait(rollout_id, lambda now: now == state)

    def wait_while(self, rollout_id: str, state: str) -> None:
        self._wait(rollout_id, lambda now: now != state)

    def _wait(self, rollout_id: str, holds: Callable[[str], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not holds(now := self.state(rollout_id)):
            assert time.monotonic() < deadline, f"{rollout_id} is {now}"
            time.sleep(POLL_SECONDS)


class UvicornProcess(ServerProcess):
    """The same agent under ``uvicorn module:app``."""

    def _launch(self, *options: str, stderr: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "support.promise_app:app", *options],
            cwd=TESTS,
            env=self._environment | {"OSMOSIS_ROLLOUT_SERVER_JOURNAL": str(self.journal)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )


def listens(port: int) -> bool:
    """Whether anybody does on the loopback; a refusal costs httpx much of a machine on which a server starts."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def init_of(rollout_id: str, trainer_url: str, do: str = "complete", **fields: Any) -> dict[str, Any]:
    """An init for ``promise_agent``."""
    return {
        "rollout_id": rollout_id,
        "server_url": trainer_url,
        "messages": [{"role": "user", "content": f"This is {rollout_id}."}],
        "completion_params": {},
        "metadata": {"do": do},
        **fields,
    }


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with these settings of the SDK and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("OSMOSIS_")}
    ours = {f"OSMOSIS_ROLLOUT_{name}": value for name, value in settings.items()}
    return inherited | {"OSMOSIS_NO_DOTENV": "1"} | ours


def start_serving(
    journal: Path, *options: str, environment: dict[str, str], stderr: int | None = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start ``osmosis serve`` without a key on the loopback."""
    command = ["serve", "-m", AGENT, "--local", "--host", "127.0.0.1", "--journal", str(journal), *options]
    return subprocess.Popen(
        [sys.executable, "-m", "osmosis_ai", *command],
        cwd=TESTS,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )
