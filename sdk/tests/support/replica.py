"""``osmosis serve`` as one of several on a database."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.server_process import AGENT, TESTS, ServerProcess


class Replica(ServerProcess):
    """One with the journal at ``url``; its log is ``folder/name.log``."""

    def __init__(self, folder: Path, name: str, url: str, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(folder / f"{name}.db", {"SERVER_JOURNAL": url, **(settings or {})})

    def _launch(self, *options: str, stderr: int) -> "subprocess.Popen[bytes]":
        # The URL has a password, which is for no command line.
        return subprocess.Popen(
            [sys.executable, "-m", "osmosis_ai", "serve", "-m", AGENT, "--local", "--host", "127.0.0.1", *options],
            cwd=TESTS,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
