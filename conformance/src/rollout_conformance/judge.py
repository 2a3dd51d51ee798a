"""A run: a trainer on a socket, the checks phase by phase, a report."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from rollout_conformance.asking import INIT_PATH, describe
from rollout_conformance.audit import ended
from rollout_conformance.catalogue import all_checks
from rollout_conformance.endpoint import address_of, listen, served
from rollout_conformance.evidence import nothing_yet
from rollout_conformance.kit import Kit
from rollout_conformance.kit_trainer import KitTrainer
from rollout_conformance.lateness import watched
from rollout_conformance.options import DRAIN_VARIABLE, SHORT_DRAIN_SECONDS, KitOptions
from rollout_conformance.own_connections import OwnConnections
from rollout_conformance.policy import Policy
from rollout_conformance.root_causes import with_causes
from rollout_conformance.server_command import ServerCommand
from rollout_conformance.text import LEAST_SECRET_CHARACTERS, shortened
from rollout_conformance.usual_causes import NO_ANSWER
from rollout_conformance.vocabulary import (
    Check,
    ConformanceError,
    Failed,
    NotExercised,
    Phase,
    Report,
    Result,
    Skipped,
    Status,
    TooBusy,
)

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
STEPS = ((Phase.TOGETHER, Phase.LATE), (Phase.ALONE,), (Phase.AUDIT, Phase.STOPPING))
"""Which phases follow which; those of one step overlap."""
AT_ONCE = {Phase.TOGETHER: 48, Phase.LATE: 1, Phase.ALONE: 1, Phase.AUDIT: 1, Phase.STOPPING: 1}
FIRST_STOPPING = "drain.stopped"
"""While the server takes its time to end, the audits wait for what must not come; one that is killed sends nothing."""
FIRST = "load.beside_paused"
"""Before all others: where the pause of one holds them up, they soon stand still, and nobody can tell why."""
LONGEST = (
    FIRST,
    *("delivery.persistent", "delivery.no_connection", "callbacks.secret", "retries.no_connection"),
    *("retries.too_many", "state.cancel", "delivery.refused_once", "delivery.slow"),
    *("delivery.delay", "delivery.retry_after", "retries.delay", "delivery.final"),
    *("delivery.nothing_left", "errors.unreachable", "load.beside_failing", "retries.later"),
    *("retries.pause", "idempotency.after_error", "delivery.created", "delivery.any_body"),
    *("state.cancel_ended",),
)
"""Begin first, the longest of them first: they wait for all delays of a server, or for seconds that are fixed."""
HEAD_START_SECONDS = 0.3
"""Of the longest, so that what they wait for begins at once."""
FEW = 60
"""So many checks of ``TOGETHER`` may be left when the late ones begin, most of which wait."""

OnResult = Callable[[Result], None]


async def run(
    options: KitOptions,
    checks: Sequence[Check] | None = None,
    *,
    strict: bool = False,
    expected_failures: Collection[str] = (),
    on_result: OnResult | None = None,
) -> Report:
    """Run checks against a server.

    Args:
        checks: from ``select``; all if ``None``.
        strict: a SHOULD that does not hold is a failure too, and so is what was not exercised.
        expected_failures: ids of checks that may fail, as of ``baseline.read``.
        on_result: told of each result as it comes.

    Raises:
        ConformanceError: the server cannot be reached or started, wants a key, the trainer has no address, or the
            policy raised.
    """
    chosen = tuple(all_checks() if checks is None else checks)
    began = time.monotonic()
    policy = None if options.policy is None else Policy(options.policy)
    listener = listen(options.callback_host, options.callback_port)
    trainer = KitTrainer(
        options.callback_url or address_of(listener, options.callback_host), options.timeout_seconds, policy
    )
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        await stack.enter_async_context(served(trainer.handle, listener))
        http = OwnConnections(options.timeout_seconds, min(CONNECT_SECONDS, options.timeout_seconds))
        command = None
        if options.server_command:
            # So that the end of a drain is seen, and soon; a server need not read it.
            variables = {} if options.drain_seconds is not None else {DRAIN_VARIABLE: str(SHORT_DRAIN_SECONDS)}
            command = await stack.enter_async_context(
                ServerCommand(options.server_command, options.server_url, variables)
            )
        lateness = await stack.enter_async_context(watched())
        kit = Kit(options, http, trainer, command=command)
        await _require_server(kit)
        results = await _unless_failed(trainer, _run_phases(kit, chosen, on_result))
        output = _last_output(command, results.values())
    ordered = with_causes([results[check.id] for check in chosen])
    failure = "" if options.init_fields else _agent_failure(trainer)
    return Report(
        options.server_url,
        ordered,
        time.monotonic() - began,
        strict,
        len(trainer.rollouts),
        failure,
        frozenset(expected_failures),
        tuple(_without_key(options, line) for line in output),
        lateness.worst_seconds,
    )


async def _unless_failed(trainer: KitTrainer, phases: Coroutine[Any, Any, dict[str, Result]]) -> dict[str, Result]:
    """What the phases give; a policy's failure ends them, as no check could say more than that."""
    running: asyncio.Future[Any] = asyncio.create_task(phases)
    failure: asyncio.Future[Any] = trainer.failure
    try:
        await asyncio.wait((running, failure), return_when=asyncio.FIRST_COMPLETED)
        if trainer.failure.done():
            raise trainer.failure.result()
        return dict(await running)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _agent_failure(trainer: KitTrainer) -> str:
    """The first error that is the agent's own, if no more rollouts are COMPLETED than end so.

    An agent that cannot do with the kit's inits and replies fails with most; one that breaks on a rare reply does not.
    """
    results = [rollout.completions[0].fields for rollout in trainer.rollouts if rollout.completions]
    failed = [result for result in results if _outcome(result) in ("agent_error", "reward_error")]
    is_most = len(failed) >= sum(result.get("status") == "COMPLETED" for result in results)
    return shortened(str(failed[0].get("error_message"))) if failed and is_most else ""


def _outcome(result: dict[str, Any]) -> object:
    extra = result.get("extra_fields")
    return extra.get("outcome") if isinstance(extra, dict) else None


def _last_output(command: ServerCommand | None, results: Iterable[Result]) -> tuple[str, ...]:
    """What may say why a server was not there; nothing where it was."""
    if command is None:
        return ()
    command.look()
    if command.own_end or all(result.usually != NO_ANSWER for result in results):
        return command.own_end
    return ("The server gave no answer. The last that it printed:", *command.last_lines())


def _without_key(options: KitOptions, text: str) -> str:
    """Reasons quote answers, and reports are shown to others."""
    key = options.api_key or ""
    # One so short is no secret, and stands in many words.
    return text if len(key) < LEAST_SECRET_CHARACTERS else text.replace(key, "[the server's key]")


async def _require_server(kit: Kit) -> None:
    """Raise ``ConformanceError`` for what would make every check fail."""
    url = kit.options.server_url
    try:
        # Refused by any server that takes the key, and without effect; GET /health is answered without one.
        response = await kit.post(b"{}", insist=False)
    except Failed as failure:
        raise ConformanceError(f"{url} does not answer ({failure}): start the server, or correct --server.") from None
    if response.status_code in (404, 405):
        raise ConformanceError(f"{url} has no POST {INIT_PATH} ({describe(response)}): correct --server.")
    if response.status_code not in (401, 403):
        return
    if kit.options.api_key:
        raise ConformanceError(f"{url} refuses the key it was given ({response.status_code}): correct --server-key.")
    raise ConformanceError(f"{url} wants a key ({response.status_code}): give it as --server-key.")


async def _run_phases(kit: Kit, checks: Sequence[Check], on_result: OnResult | None) -> dict[str, Result]:
    results: dict[str, Result] = {}
    once_more: list[Check] = []
    slots = {phase: asyncio.Semaphore(at_once) for phase, at_once in AT_ONCE.items()}
    together = [check for check in checks if check.phase is Phase.TOGETHER]
    has_audits = any(check.phase is Phase.AUDIT for check in checks)
    few_are_left = asyncio.Event()

    def count() -> None:
        if sum(check.id not in results for check in together) <= FEW:
            few_are_left.set()

    async def take(check: Check) -> None:
        if check.phase is Phase.LATE:
            await few_are_left.wait()
        if check.phase is Phase.STOPPING and has_audits:
            await ended(kit)
        async with slots[check.phase]:
            results[check.id] = result = await _run_check(kit, check)
        count()
        if result.was_too_busy and check not in once_more:
            once_more.append(check)
        elif on_result is not None:
            on_result(result)

    async def take_all(some: Iterable[Check]) -> None:
        async with asyncio.TaskGroup() as group:
            has_head_start = False
            for check in some:
                if has_head_start and check.id not in LONGEST:
                    await asyncio.sleep(HEAD_START_SECONDS)
                has_head_start = check.id in LONGEST
                group.create_task(take(check))
                if check.id == FIRST:
                    await asyncio.sleep(HEAD_START_SECONDS)

    count()
    for step in STEPS:
        await take_all(check for check in sorted(checks, key=_rank) if check.phase in step)
        # Less goes on now, so that a machine which is no busier than the kit makes it can tell.
        await take_all([check for check in once_more if check.phase in step])
    return results


def _rank(check: Check) -> tuple[int, bool]:
    longest = LONGEST.index(check.id) if check.id in LONGEST else len(LONGEST)
    return longest, check.phase is Phase.STOPPING and check.id != FIRST_STOPPING


async def _run_check(kit: Kit, check: Check) -> Result:
    own = kit.of_check(check.id)
    began = time.monotonic()
    status, reason, sent, seen, subjects = Status.PASSED, "", "", "", frozenset[str]()
    usually: str | None = None
    cause, was_too_busy = "", False
    nothing_yet()
    try:
        await check.run(own)
    except Failed as failure:
        status, reason, subjects = Status.FAILED, str(failure), failure.subjects
        sent, seen, usually = failure.evidence.sent, failure.evidence.seen, failure.usually
    except Skipped as skipped:
        status, reason = Status.SKIPPED, str(skipped)
    except NotExercised as verdict:
        status, reason, cause = Status.NOT_EXERCISED, str(verdict), verdict.cause
        was_too_busy = isinstance(verdict, TooBusy)
    except Exception as error:
        logger.exception("The check %s broke", check.id)
        status, reason = Status.BROKEN, f"the kit itself failed: {type(error).__name__}: {shortened(str(error))}"
    finally:
        # Rollouts that the check left waiting come to an end, which the audits wait for.
        own.release()
    reason, sent, seen = (_without_key(kit.options, text) for text in (reason, sent, seen))
    return Result(check, status, reason, time.monotonic() - began, sent, seen, subjects, cause, usually, was_too_busy)
