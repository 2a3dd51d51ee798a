"""Commands of a page, run as a reader would: from the project's folder, in a shell of their own."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer.main

from osmosis_ai.cli.app import app

ROOT = Path(__file__).parent.parent
DEADLINE_SECONDS = 150
DOCUMENTED_PORT = "127.0.0.1:9000"
KEY_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_API_KEY"


def commands() -> Iterator[tuple[str, Any]]:
    """Every command of ``osmosis`` by its full name, in the order of ``--help``."""
    yield from _below("osmosis", typer.main.get_command(app))


def _below(prefix: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _below(f"{prefix} {name}", command)
        else:
            yield f"{prefix} {name}", command


def flags(command: Any, *, shown: bool = False) -> set[str]:
    """The options of a command, as they are written; ``shown``: without those that its help leaves out."""
    options = [one for one in command.params if not (shown and getattr(one, "hidden", False))]
    own = {flag for option in options for flag in (*option.opts, *option.secondary_opts) if flag.startswith("-")}
    return own | {"-h", "--help"}


def environment(tmp_path: Path, port: int | None = None) -> dict[str, str]:
    """As in a user's shell: without this test's virtual environment, and with the uv that runs it on the path."""
    variables = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    folders = [folder for folder in variables["PATH"].split(os.pathsep) if Path(folder) != Path(sys.executable).parent]
    if uv := os.environ.get("UV") or shutil.which("uv"):
        folders.insert(0, str(Path(uv).parent))
    variables["PATH"] = os.pathsep.join(folders)
    variables[KEY_VARIABLE] = "readme-key"
    variables["OSMOSIS_ROLLOUT_SERVER_JOURNAL"] = str(tmp_path / "journal.db")
    if port is not None:
        variables["ROLLOUT_SERVER_PORT"] = str(port)
    return variables


def run(command: str, tmp_path: Path, port: int | None = None, *, has_key: bool = True) -> str:
    """The output of a command that must succeed; ``port`` stands in for the documented one.

    ``has_key``: whether the server's key is in the environment, as it is not beside a server without one.
    """
    variables = environment(tmp_path, port)
    if not has_key:
        del variables[KEY_VARIABLE]
    with subprocess.Popen(
        ["sh", "-ec", moved(command, tmp_path, port)],
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=DEADLINE_SECONDS)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # the shell alone would leave its children behind
            raise
    assert process.returncode == 0, f"{command}\n{output}\n{errors}"
    return output


@contextmanager
def serving(command: str, tmp_path: Path) -> Iterator[int]:
    """The port of the server that ``command`` starts; it must end with exit code 0 on SIGTERM."""
    port = free_port()
    output_file = tmp_path / "output"
    with output_file.open("w+") as output:
        process = subprocess.Popen(
            ["sh", "-c", f"exec env {moved(command.strip(), tmp_path, port)}"],
            cwd=ROOT,
            env=environment(tmp_path, port),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not is_healthy(f"http://127.0.0.1:{port}"):
                assert process.poll() is None, f"{command}\n{output_file.read_text()}"
                assert time.monotonic() < deadline, f"{command}\n{output_file.read_text()}"
                time.sleep(0.05)
            yield port
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0, f"{command}\n{output_file.read_text()}"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # uv alone would leave its child behind
            process.wait()


def moved(command: str, tmp_path: Path, port: int | None) -> str:
    """``command`` with a port and temporary files of its own, so that tests may run beside each other."""
    command = command.replace("/tmp/", f"{tmp_path}/")  # noqa: S108 - a page's, not ours
    if port is None:
        return command
    command = command.replace(DOCUMENTED_PORT, f"127.0.0.1:{port}")
    if re.search(r"(?:-p|--port) \d+", command):
        return re.sub(r"(-p|--port) \d+", rf"\1 {port}", command)
    return re.sub(r"\bosmosis (serve|doctor)\b", rf"osmosis \1 -p {port}", command)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def is_healthy(url: str) -> bool:
    """Whether a rollout server answers."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as response:  # noqa: S310 - loopback
            return bool(json.load(response)["status"] == "healthy")
    except OSError:
        return False
