"""The mutants, by name; importing a table puts its rows into ``MUTANTS``."""

from servers.mutants import conversations, corners, inits, processes, results, trainers
from servers.mutants.mechanism import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant", "conversations", "corners", "inits", "processes", "results", "trainers"]
