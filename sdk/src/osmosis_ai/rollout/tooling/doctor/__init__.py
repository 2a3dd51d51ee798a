"""What is wrong with a set-up, found before a rollout fails of it: the library behind ``osmosis doctor``.

``types`` is the vocabulary. ``case`` holds the evidence that several checks share, each piece gathered once by a module
``*_report``: the agent, loaded in a child process, and what the trainer, the port and the journal are like. ``checks``
is the table of all checks: functions from a ``Case`` to a ``Finding``, in modules named for their subject. ``examine``
runs them side by side within a time limit. Nothing is changed: what does not exist yet is not made.
"""

import sys
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from osmosis_ai.rollout.tooling.doctor.checks import CHECKS as CHECKS
    from osmosis_ai.rollout.tooling.doctor.runner import examine as examine
    from osmosis_ai.rollout.tooling.doctor.types import (
        Check as Check,
        Diagnosis as Diagnosis,
        Finding as Finding,
        Need as Need,
        Setup as Setup,
        Status as Status,
    )

_EXPORTS = {
    "osmosis_ai.rollout.tooling.doctor.checks": "CHECKS",
    "osmosis_ai.rollout.tooling.doctor.runner": "examine",
    "osmosis_ai.rollout.tooling.doctor.types": "Check Diagnosis Finding Need Setup Status",
}

__all__, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
