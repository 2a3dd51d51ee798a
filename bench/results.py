"""All that a run of the bench has measured."""

from dataclasses import asdict, dataclass, field
from typing import Any

from bench.contenders.roster import Contender
from bench.contest import Line
from bench.machine import Machine
from bench.scenarios import Outcome, Scenario
from bench.startup import StartUp
from bench.workers import WorkersOutcome


@dataclass
class Results:
    """Each list is empty if that part was not run."""

    machine: Machine
    command: str
    lines: list[Line] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    workers: list[WorkersOutcome] = field(default_factory=list)
    startup: list[StartUp] = field(default_factory=list)
    seconds: float = 0.0
    load_average: float = 0.0
    """Of the last minute, at the end; the bench itself makes it about 2."""

    def line(self, contender: Contender, concurrency: int, turns: int) -> Line | None:
        """A contender's in a cell with replies of the ordinary size."""
        for line in self.lines:
            cell = line.cell
            if (line.contender, cell.concurrency, cell.turns) == (contender, concurrency, turns):
                return line if cell.reply_bytes is None else None
        return None

    def outcome(self, scenario: Scenario, contender: Contender) -> Outcome | None:
        """A contender's in a scenario."""
        found = [one for one in self.outcomes if (one.scenario, one.contender) == (scenario, contender)]
        return found[0] if found else None

    @property
    def errors(self) -> list[str]:
        """Everything that went wrong, a line each."""
        problems = []
        for line in self.lines:
            where = f"{line.contender}, concurrency {line.cell.concurrency}, {line.cell.turns} turns"
            problems += [f"{where}: {times} times {what}" for what, times in line.errors.items()]
        for outcome in self.outcomes:
            where = f"{outcome.contender}, {outcome.scenario.name}"
            problems += [f"{where}: {times} times {what}" for what, times in outcome.errors.items()]
        for one in self.workers:
            problems += [f"{one.workers} workers: {times} times {what}" for what, times in one.errors.items()]
        return problems

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self) | {"problems": self.errors}
