"""``python -m osmosis_ai`` in a process of its own, with what it prints kept in files."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from support.plain_http import PLAIN

DEADLINE_SECONDS = 60.0
POLL_SECONDS = 0.01


def own_environment(**variables: str) -> dict[str, str]:
    """This process's environment without anybody's settings of the SDK, plus ``variables``."""
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("OSMOSIS_")}
    return inherited | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"} | variables


class Program:
    """``osmosis <arguments>`` in ``directory``; it never outlives the ``with`` block."""

    COMMAND: tuple[str, ...] = (sys.executable, "-m", "osmosis_ai")

    def __init__(self, directory: Path, *arguments: str, **variables: str) -> None:
        self._out, self._err = directory / "stdout.txt", directory / "stderr.txt"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [*self.COMMAND, *arguments],
                cwd=directory,
                env=own_environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A reloading server has a child, which is in its session.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._out.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        """What it has said on stderr so far."""
        return self._err.read_text(encoding="utf-8")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match of ``pattern`` in what it prints, once it is there."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (found := re.search(pattern, self.stdout + self.stderr)) is None:
            ended = self._process.poll()
            if ended is not None or time.monotonic() > deadline:
                raise AssertionError(f"{pattern} did not come (exit code {ended}):\n{self.stdout}{self.stderr}")
            time.sleep(POLL_SECONDS)
        return found

    def signal(self, number: signal.Signals) -> int:
        """Send a signal and give the exit code, once it has ended."""
        self._process.send_signal(number)
        return self._process.wait(DEADLINE_SECONDS)


class ServingProgram(Program):
    """``osmosis serve <arguments>``, which prints its address."""

    def __init__(self, directory: Path, *arguments: str, **variables: str) -> None:
        super().__init__(directory, "serve", *arguments, **variables)

    def wait_until_serving(self) -> Self:
        """Wait until it answers."""
        self.port = int(self.wait_for(r"Address:\s+\S+:(\d+)")[1])
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            with suppress(httpx.TransportError):
                if self.get("/health").is_success:
                    return self
            if time.monotonic() > deadline:
                raise AssertionError(f"It does not answer:\n{self.stdout}{self.stderr}")
            time.sleep(POLL_SECONDS)

    def get(self, path: str) -> httpx.Response:
        """A request without a key."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", **PLAIN)

    def init(self, body: dict[str, Any], key: str | None = None) -> httpx.Response:
        """An init, with or without a key."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        url = f"http://127.0.0.1:{self.port}/v1/rollout/init"
        return httpx.post(url, json=body, headers=headers, **PLAIN)
