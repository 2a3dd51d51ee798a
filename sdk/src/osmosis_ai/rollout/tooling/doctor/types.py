"""The doctor's vocabulary: what is examined (``Setup``), and what came out (``Finding``)."""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

MORE_TIME = "Give it more time, as in --timeout 30."


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    """It works, but not as well or as safely as it could."""
    PROBLEM = "problem"
    """It does not work."""
    NOT_CHECKED = "not checked"


class Need(StrEnum):
    """What a check cannot do without; the value says how to give it."""

    AGENT = "Give the agent with -m module:attribute"
    TRAINER = "Give the trainer with --trainer URL"
    TRACES = "Give the folder of traces with --log DIR"
    DATASET = "Give the dataset with --dataset FILE"


@dataclass(frozen=True, slots=True)
class Setup:
    """What ``osmosis serve`` would be given, and the trainer that would call it."""

    module: str | None = None
    """``module:attribute`` of an agent loop."""
    mcp: str | None = None
    """A folder of MCP tools, in place of ``module``."""
    host: str | None = None
    """``None``: every interface, or the loopback with ``local``."""
    port: int = 9000
    local: bool = False
    """Serve without a key."""
    api_key: str | None = field(default=None, repr=False)
    """The server's own key; ``None`` takes the setting."""
    journal: str | None = None
    """A path or ``off``; ``None`` takes the setting, else ``.osmosis/journal.db``."""
    traces: str | None = None
    """A folder; ``None`` takes ``ROLLOUT_DEBUG_DIR``, else none."""
    trainer: str | None = None
    """Its URL."""
    trainer_key: str | None = field(default=None, repr=False)
    """What inits bring as ``api_key``: the key of the calls to the trainer."""
    dataset: str | None = None
    """A file of rows."""
    columns: str | None = None
    """Where prompt and truth are in it, as ``--columns`` says."""
    model: str | None = None
    """Of ``osmosis test``; ``None`` takes its default."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: one sentence, and one on what to do."""

    status: Status
    message: str
    fix: str | None


ok = partial(Finding, Status.OK, fix=None)
warning = partial(Finding, Status.WARNING)
problem = partial(Finding, Status.PROBLEM)
not_checked = partial(Finding, Status.NOT_CHECKED, fix=None)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The findings by the id of their check, in the order of the table."""

    findings: dict[str, Finding]
    seconds: float
    """How long it took."""

    def count(self, status: Status) -> int:
        """How many findings have ``status``."""
        return sum(finding.status is status for finding in self.findings.values())

    @property
    def is_healthy(self) -> bool:
        """Whether there is no problem; warnings are none."""
        return not self.count(Status.PROBLEM)
