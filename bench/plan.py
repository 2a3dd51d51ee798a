"""What the bench measures: all of it, or the quick version."""

from dataclasses import dataclass
from enum import StrEnum

from bench.contenders.roster import Contender
from bench.contest import Cell
from bench.scenarios import CROWD, PATIENT_512, PATIENT_4096, Scenario

TWO_CALLS = 2
"""Turns of the rollouts that the issue's criteria speak of."""
MANY = 1000
LONG_TURNS = 10
LONG_REPLY_BYTES = 4000
"""A reply's text in the long rollouts: 50 of them make a conversation of 200 KB."""

CORE = (Contender.OURS, Contender.FLOOR, Contender.FASTAPI, Contender.CLIENT_PER_ROLLOUT)
COMPARED_IN_SCENARIOS = (Contender.OURS, Contender.FLOOR, Contender.FASTAPI)


class Part(StrEnum):
    """What can be asked for by name."""

    ROLLOUTS = "rollouts"
    """The table: contenders side by side, at each concurrency and length."""
    SCENARIOS = "scenarios"
    """Many in flight, a slow model, /health polled."""
    WORKERS = "workers"
    """One process and two."""
    STARTUP = "startup"
    """Imports, the command line, the first answer."""


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    cells: list[Cell]
    contenders: tuple[Contender, ...]
    rounds: int
    seconds: float
    """Of a round."""
    scenarios: list[Scenario]
    scenario_contenders: tuple[Contender, ...]
    worker_rollouts: int
    """In a round."""
    worker_rounds: int
    startup_repeats: int

    def contenders_of(self, cell: Cell) -> list[Contender]:
        """Who takes part in a cell: with thousands in flight, those who would take many minutes are left out."""
        left_out: set[Contender] = set()
        if cell.concurrency > MANY and cell.turns != TWO_CALLS:
            left_out.add(Contender.CLIENT_PER_ROLLOUT)
        if cell.concurrency > MANY and cell.turns > LONG_TURNS:
            left_out |= set(Contender) - set(COMPARED_IN_SCENARIOS)
        return [contender for contender in self.contenders if contender not in left_out]


FULL = Plan(
    cells=[
        *(Cell(concurrency, turns) for turns in (1, TWO_CALLS, 3, 50) for concurrency in (1, 64, 512, 4096)),
        *(Cell(concurrency, 50, reply_bytes=LONG_REPLY_BYTES) for concurrency in (1, 64)),
    ],
    contenders=tuple(Contender),
    rounds=3,
    seconds=2.0,
    scenarios=[CROWD, PATIENT_512, PATIENT_4096],
    scenario_contenders=COMPARED_IN_SCENARIOS,
    worker_rollouts=4000,
    worker_rounds=7,
    startup_repeats=7,
)
QUICK = Plan(
    cells=[Cell(concurrency, TWO_CALLS) for concurrency in (1, 64, 512)],
    contenders=CORE,
    rounds=3,
    seconds=0.7,
    scenarios=[CROWD, PATIENT_512],
    scenario_contenders=(Contender.OURS,),
    worker_rollouts=1500,
    worker_rounds=3,
    startup_repeats=3,
)
