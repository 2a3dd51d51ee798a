"""``SmallServer`` with one planted defect each; importing a module puts its classes on ``BrokenServer.every``."""

from servers.broken import conversations, inits, processes, results
from servers.broken.base import BrokenServer

__all__ = ["BrokenServer", "conversations", "inits", "processes", "results"]
