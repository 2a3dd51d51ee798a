"""The client of the osmosis-ai that is published today (0.3), in an environment and a process of its own."""

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
PLACE = ROOT / ".venv-published"
ENVIRONMENT = PLACE / "environment"
REQUIREMENT = "osmosis-ai>=0.3.8,<0.4"
INSTALL_SECONDS = 150
LINE_BYTES = 16 * 1024 * 1024
DRIVER = Path(__file__).with_name("published_client_driver.py")


def _pythons() -> Iterator[str]:
    if sys.version_info >= (3, 12):
        yield sys.executable
    for version in ("3.12", "3.13"):
        # A pyenv shim is on the PATH for every version, but answers only for the one that is named.
        yield from map(str, sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3")))
        if found := shutil.which(f"python{version}"):
            yield found


def _answers(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0


def published_python() -> str | None:
    """The interpreter of the environment, which is made once; ``None`` where it cannot be."""
    python = ENVIRONMENT / "bin/python"
    PLACE.mkdir(exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if python.exists() and _answers([str(python), "-c", "import osmosis_ai.rollout.client"]):
            return str(python)
        recent = "import sys; assert sys.version_info >= (3, 12)"
        base = next((each for each in _pythons() if _answers([each, "-c", recent])), None)
        if base is None:
            return None
        try:
            for command in (
                [base, "-m", "venv", "--clear", str(ENVIRONMENT)],
                [str(python), "-m", "pip", "install", "--quiet", REQUIREMENT],
            ):
                subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS)
        except (subprocess.SubprocessError, OSError):
            return None
    return str(python)


class PublishedClient:
    """Takes many jobs at once."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    def begin(self, do: str, **about: Any) -> "asyncio.Future[dict[str, Any]]":
        """What will come of a job."""
        n = len(self._waiting)
        self._waiting[n] = future = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"n": n, "do": do, **about}).encode() + b"\n")
        return future

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            outcome = json.loads(line)
            self._waiting[outcome.pop("n")].set_result(outcome)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(AssertionError("the driver of the published client has ended"))

    async def close(self) -> None:
        self._process.kill()
        await self._process.wait()
        self._reader.cancel()


@asynccontextmanager
async def published_client(python: str, url: str, *key: str) -> AsyncIterator[PublishedClient]:
    """One against the server at ``url``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OSMOSIS_", "PYTHON"))}
    process = await asyncio.create_subprocess_exec(
        *(python, str(DRIVER), url, *key),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
        env=environment,
        cwd="/",
    )
    client = PublishedClient(process)
    try:
        yield client
    finally:
        await client.close()
