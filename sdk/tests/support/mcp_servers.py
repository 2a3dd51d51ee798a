"""MCP servers in processes of their own, over streamable HTTP."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(source: str, directory: Path) -> Iterator[str]:
    """The URL of a server that ``source`` starts at the port in ``sys.argv[1]``; killed at the end."""
    (directory / "tool_server.py").write_text(source)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(directory / "tool_server.py"), str(port)])
    try:
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()
