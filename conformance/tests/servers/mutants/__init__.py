"""The mutants, by name; importing a table puts its rows into ``MUTANTS``."""

from servers.mutants import clauses, conversations, corners, inits, narrow, processes, readings, results, trainers
from servers.mutants.mechanism import MUTANTS, Mutant

__all__ = [
    "MUTANTS",
    "Mutant",
    "clauses",
    "conversations",
    "corners",
    "inits",
    "narrow",
    "processes",
    "readings",
    "results",
    "trainers",
]
