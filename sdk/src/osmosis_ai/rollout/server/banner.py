"""Where a server serves: as a banner for people, or as one line of JSON for whoever started it.

It is told once, when the socket listens: what is sent from then on waits for the server, and is not refused.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from osmosis_ai.rollout.core.console import console
from osmosis_ai.rollout.core.json_document import write_document
from osmosis_ai.rollout.journal.place import shown
from osmosis_ai.rollout.server.public_address import PublicIPDetectionError, detect_public_ip
from osmosis_ai.rollout.server.startup import Key
from osmosis_ai.rollout.wire.addresses import all_interfaces


@dataclass(frozen=True)
class Banner:
    """What is told of a server; ``tool_count`` is known where the agent loop has been validated."""

    agent_name: str
    tool_count: int | None
    host: str
    port: int
    key: Key
    journal: str
    traces: str | None
    workers: int
    registration: str | None
    warnings: Sequence[str] = ()

    def print(self) -> None:
        """Print it for people."""
        rows = [("Agent:", self.agent_name), ("Address:", f"{self.host}:{self.port}")]
        if all_interfaces(self.host):
            try:
                rows.append(("Public IP:", detect_public_ip()))
            except PublicIPDetectionError:
                rows.append(("Public IP:", "(could not detect)"))
        skipped = f"skipped ({self.registration} mode)" if self.registration else "not available in this SDK"
        rows += [("API Key:", self.key.shown), ("Registration:", skipped)]
        if self.traces:
            rows.append(("Debug Log:", f"{self.traces}/"))
        width = max(len(label) for label, _ in rows)
        console.print()
        console.panel("RolloutServer", "\n".join(f"{label:<{width}} {value}" for label, value in rows), style="green")
        console.print()

    def print_json(self) -> None:
        """Print it as one line of JSON; the key is there only where it is new, as nobody else knows it then."""
        told = {
            "agent_name": self.agent_name,
            "tool_count": self.tool_count,
            "host": self.host,
            "port": self.port,
            "pid": os.getpid(),
            "workers": self.workers,
            "needs_key": self.key.value is not None,
            "api_key": self.key.value if self.key.is_new else None,
            "journal": shown(self.journal),
            "traces": self.traces,
            "warnings": list(self.warnings),
        }
        write_document([json.dumps(told), "\n"])
