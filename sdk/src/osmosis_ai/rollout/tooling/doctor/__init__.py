"""What is wrong with a set-up, found before a rollout fails of it: the library behind ``osmosis doctor``.

``types`` is the vocabulary. A module a subject (``agent``, ``address``, ``trainer``, ``storage``, ``configuration``,
``environment``, ``model``) holds its checks, functions from a ``Case`` to a ``Finding``, below the report they read.
``case`` has each report gathered once, however many checks ask at the same time. ``examination`` runs all checks side
by side within a time limit. Nothing is changed: what does not exist yet is not made.
"""

import sys
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from osmosis_ai.rollout.tooling.doctor.case import Check as Check
    from osmosis_ai.rollout.tooling.doctor.examination import CHECKS as CHECKS, examine as examine
    from osmosis_ai.rollout.tooling.doctor.types import (
        Diagnosis as Diagnosis,
        Finding as Finding,
        Need as Need,
        Setup as Setup,
        Status as Status,
    )

_EXPORTS = {
    "osmosis_ai.rollout.tooling.doctor.case": "Check",
    "osmosis_ai.rollout.tooling.doctor.examination": "CHECKS examine",
    "osmosis_ai.rollout.tooling.doctor.types": "Diagnosis Finding Need Setup Status",
}

__all__, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
