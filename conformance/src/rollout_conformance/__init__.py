"""The conformance kit: plays a trainer against any rollout server and judges what it does.

A ``Check`` is one promise of the protocol. ``run`` starts a trainer of the kit's own (an HTTP endpoint for completions
and results), lets the checks start rollouts on the server under test, mostly at once, and gives a ``Report`` with a
``Result`` for each check. Nothing is assumed of the agent behind the server: it is led by scripted completions that
call the tools the server itself has offered.

    report = await run(KitOptions(server_url="http://127.0.0.1:9000"))
    report.is_success

``osmosis conformance`` and the pytest plugin are thin over this.
"""

import sys
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from osmosis_ai.rollout.conformance.options import KitOptions as KitOptions
    from osmosis_ai.rollout.conformance.registry import all_checks as all_checks, select as select
    from osmosis_ai.rollout.conformance.runner import run as run
    from osmosis_ai.rollout.conformance.types import (
        Check as Check,
        ConformanceError as ConformanceError,
        Level as Level,
        Report as Report,
        Result as Result,
        Status as Status,
    )

_EXPORTS = {
    "osmosis_ai.rollout.conformance.options": "KitOptions",
    "osmosis_ai.rollout.conformance.registry": "all_checks select",
    "osmosis_ai.rollout.conformance.runner": "run",
    "osmosis_ai.rollout.conformance.types": "Check ConformanceError Level Report Result Status",
}

__all__, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
