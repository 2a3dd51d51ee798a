"""The rollout journal: what has been promised, what came of it, and whether the trainer has it.

``types`` is the vocabulary, ``base`` the contract, ``memory``, ``sqlite`` and ``postgres`` implement it. Behind
``sqlite``: ``writer`` (one thread, grouped commits), ``table`` (the SQL), ``file`` (opening it safely, seeing whether
it is sound), ``owner`` and ``anchor`` (who is alive). ``clock`` is the time of both, ``retention`` how long records
stay, ``salvage`` what can be had of a damaged file. Each name is imported on first use.
"""

import sys
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.settings import (
        Synchronous as Synchronous,
    )
    from osmosis_ai.rollout.journal.base import (
        Journal as Journal,
    )
    from osmosis_ai.rollout.journal.clock import (
        Clock as Clock,
    )
    from osmosis_ai.rollout.journal.errors import (
        JournalDamagedError as JournalDamagedError,
        JournalError as JournalError,
        UnknownKeyError as UnknownKeyError,
    )
    from osmosis_ai.rollout.journal.memory import (
        MemoryJournal as MemoryJournal,
    )
    from osmosis_ai.rollout.journal.postgres.journal import (
        PostgresJournal as PostgresJournal,
    )
    from osmosis_ai.rollout.journal.retention import (
        Retention as Retention,
    )
    from osmosis_ai.rollout.journal.sqlite import (
        SqliteJournal as SqliteJournal,
    )
    from osmosis_ai.rollout.journal.types import (
        SETTLED as SETTLED,
        TRANSITIONS as TRANSITIONS,
        UNSETTLED as UNSETTLED,
        Acceptance as Acceptance,
        JournalRecord as JournalRecord,
        Move as Move,
        Payload as Payload,
        RolloutState as RolloutState,
    )

_EXPORTS = {
    "osmosis_ai.rollout.journal.base": "Journal",
    "osmosis_ai.rollout.journal.clock": "Clock",
    "osmosis_ai.rollout.journal.errors": "JournalDamagedError JournalError UnknownKeyError",
    "osmosis_ai.rollout.core.settings": "Synchronous",
    "osmosis_ai.rollout.journal.memory": "MemoryJournal",
    "osmosis_ai.rollout.journal.postgres.journal": "PostgresJournal",
    "osmosis_ai.rollout.journal.retention": "Retention",
    "osmosis_ai.rollout.journal.sqlite": "SqliteJournal",
    "osmosis_ai.rollout.journal.types": (
        "SETTLED TRANSITIONS UNSETTLED Acceptance JournalRecord Move Payload RolloutState"
    ),
}

__all__, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
