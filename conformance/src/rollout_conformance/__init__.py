"""The conformance kit: plays a trainer against any rollout server and judges what it does.

A ``Check`` is one promise of the protocol. ``run`` starts a trainer of the kit's own (an HTTP endpoint for completions
and results), lets the checks start rollouts on the server under test, mostly at once, and gives a ``Report`` with a
``Result`` for each check. Nothing is assumed of the agent behind the server: it is led by scripted completions that
call the tools the server itself has offered.

    report = await run(KitOptions(server_url="http://127.0.0.1:9000"))
    report.is_success

``rollout-conformance`` and the pytest plugin are thin over this. No code is shared with the SDK, which is one of those
that are judged.
"""

from typing import TYPE_CHECKING, Any

from rollout_conformance.catalogue import all_checks, select
from rollout_conformance.options import KitOptions
from rollout_conformance.sentences import Level
from rollout_conformance.vocabulary import Check, ConformanceError, Report, Result, Status, UsageError

if TYPE_CHECKING:
    from rollout_conformance.judge import run

__all__ = [
    "Check",
    "ConformanceError",
    "KitOptions",
    "Level",
    "Report",
    "Result",
    "Status",
    "UsageError",
    "all_checks",
    "run",
    "select",
]


def __getattr__(name: str) -> Any:
    # It brings httpx, which 'osmosis --help' and a pytest without a server to judge need not pay for.
    if name == "run":
        from rollout_conformance.judge import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
