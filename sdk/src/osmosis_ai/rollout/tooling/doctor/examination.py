"""Running all checks side by side, none of them for longer than there is time."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait

from osmosis_ai.rollout.core.offload import DaemonThreads
from osmosis_ai.rollout.core.text import described, without
from osmosis_ai.rollout.tooling.doctor import (
    address,
    agent,
    configuration,
    dataset,
    environment,
    model,
    storage,
    trainer,
)
from osmosis_ai.rollout.tooling.doctor.agent_child import AgentChild
from osmosis_ai.rollout.tooling.doctor.case import Case, Check
from osmosis_ai.rollout.tooling.doctor.types import MORE_TIME, Diagnosis, Finding, Need, Setup, not_checked

CHECKS = tuple(
    found
    for module in (environment, configuration, address, agent, dataset, trainer, storage, model)
    for found in vars(module).values()
    if isinstance(found, Check)
)
"""All checks, in the order they are shown."""

TIME_LIMIT_SECONDS = 2.0
MIN_SECRET_LENGTH = 6

_NAMES_A_SECRET = re.compile("KEY|SECRET|TOKEN|PASSWORD", re.IGNORECASE)


def examine(
    setup: Setup,
    *,
    time_limit_seconds: float = TIME_LIMIT_SECONDS,
    checks: Sequence[Check] = CHECKS,
    agent_child: AgentChild | None = None,
    agent_time_limit_seconds: float | None = None,
) -> Diagnosis:
    """Run every check that applies to ``setup``; what is not done in time is reported as not checked.

    ``agent_child``: the process that loads the agent, if it is at work already. ``agent_time_limit_seconds`` is for the
    checks of the agent, whose import may be slow; by default they have what the others have.

    Threads of checks that hang are daemons: they end with the process. Raises nothing for what the set-up holds.
    """
    started = time.monotonic()
    agent_limit_seconds = max(time_limit_seconds, agent_time_limit_seconds or 0.0)
    case = Case(setup, started + time_limit_seconds, agent_child, started + agent_limit_seconds)
    limits = {check.id: agent_limit_seconds if Need.AGENT in check.needs else time_limit_seconds for check in checks}
    threads = DaemonThreads(len(checks))
    try:
        running = {check.id: threads.submit(_run, check, case) for check in checks}
        for limit_seconds in sorted(set(limits.values())):
            due = [future for check_id, future in running.items() if limits[check_id] <= limit_seconds]
            wait(due, timeout=max(0.0, started + limit_seconds - time.monotonic()))
    finally:
        if case.agent_child is not None:
            case.agent_child.kill()
    secrets = tuple(_secrets(setup))
    findings = {check_id: _without(secrets, _finding(future, limits[check_id])) for check_id, future in running.items()}
    return Diagnosis(findings, time.monotonic() - started)


def _run(check: Check, case: Case) -> Finding:
    missing = [need for need in check.needs if not case.has(need)]
    return not_checked(missing[0].value + ".") if missing else check.run(case)


def _finding(future: Future[Finding], time_limit_seconds: float) -> Finding:
    if not future.done():
        return not_checked(f"There was no answer within {time_limit_seconds:g} s.", fix=MORE_TIME)
    if (error := future.exception()) is not None:
        return not_checked(f"The check itself failed: {described(error)}", fix="Please report this.")
    return future.result()


def _secrets(setup: Setup) -> Iterator[str]:
    """What must not be shown, whoever quoted it: a module that fails to load may well name a key."""
    given = (setup.api_key, setup.trainer_key)
    environment = (value for name, value in os.environ.items() if _NAMES_A_SECRET.search(name))
    for secret in (*given, *environment):
        if secret and len(secret.strip()) >= MIN_SECRET_LENGTH:
            yield secret.strip()


def _without(secrets: Sequence[str], finding: Finding) -> Finding:
    return Finding(finding.status, without(finding.message, secrets), finding.fix and without(finding.fix, secrets))
