"""The mutants, by name; importing a table puts its rows into ``MUTANTS``."""

from servers.mutants import (
    attempts,
    clauses,
    conversations,
    corners,
    groups,
    inits,
    narrow,
    processes,
    readings,
    records,
    restarts,
    results,
    seldom,
    trainers,
)
from servers.mutants.mechanism import MUTANTS, Mutant

__all__ = [
    "MUTANTS",
    "Mutant",
    "attempts",
    "clauses",
    "conversations",
    "corners",
    "groups",
    "inits",
    "narrow",
    "processes",
    "readings",
    "records",
    "restarts",
    "results",
    "seldom",
    "trainers",
]
