"""Defects of what an end of the process leaves to the next one, and to the one after it."""

import asyncio
import time
from typing import Any

from servers.model import Json, Refusal, Rollout
from servers.mutants.mechanism import mutant
from servers.small import SmallServer


async def takes_up_the_last_alone(self: SmallServer, usual: Any, rollout: Rollout) -> None:
    self.note({"settled": rollout.init, "state": "delivered"})
    await usual(rollout)


async def reports_it_anew(self: SmallServer, usual: Any, rollout: Rollout) -> None:
    extra = (rollout.result or {}).get("extra_fields", {})
    if extra.get("outcome") == "interrupted":
        rollout.result["error_message"] = f"interrupted at {time.time()}"
    await usual(rollout)


async def records_what_it_turns_away(self: SmallServer, usual: Any, init: Json) -> Any:
    try:
        return await usual(init)
    except Refusal:
        if self.is_draining:
            self.note({"accepted": init, "reply": "{}"})
        raise


def notes_no_errors(self: SmallServer, usual: Any, event: Json) -> None:
    if event.get("result", {}).get("status") != "ERROR":
        usual(event)


def notes_no_cancels(self: SmallServer, usual: Any, event: Json) -> None:
    if event.get("result", {}).get("extra_fields", {}).get("outcome") != "cancelled":
        usual(event)


def forgets_what_was_delivered(self: SmallServer, usual: Any, rollout_id: str) -> Rollout:
    found: Rollout = usual(rollout_id)
    if found.state == "delivered" and not found.attempts:  # it ended before this process began
        raise Refusal(404, "No such rollout", "unknown_rollout")
    return found


async def shares_the_first_answer(self: SmallServer, usual: Any, init: Json) -> Any:
    async def late() -> Any:
        await asyncio.sleep(0.1)
        return await usual(init)

    pending, key = self.__dict__.setdefault("pending", {}), self.key_of(init)
    if key in self.rollouts:
        return await usual(init)
    if key not in pending:
        pending[key] = asyncio.ensure_future(late())
    return await asyncio.shield(pending[key])


def cancels_all_that_begin_so(self: SmallServer, usual: Any, rollout: Rollout) -> None:
    own = rollout.init["rollout_id"]
    usual(rollout)
    for other in self.rollouts.values():
        if other is not rollout and other.state == "running" and other.init["rollout_id"].startswith(own):
            usual(other)


mutant("takes-up-the-last-alone", "drain.owed_longer", silent=True, resume=takes_up_the_last_alone, needs="process")
mutant("reports-what-was-cut-off-anew", "drain.owed_longer", resume=reports_it_anew, needs="process")
mutant("records-what-it-turns-away", "drain.turned_away", accept=records_what_it_turns_away, needs="process")
mutant("notes-no-errors", "drain.results", silent=True, note=notes_no_errors, needs="process")
mutant("notes-no-cancels", "drain.results", silent=True, note=notes_no_cancels, needs="process")
mutant("forgets-what-was-delivered", "drain.state", named=forgets_what_was_delivered, needs="process")
mutant("shares-the-first-answer", "idempotency.concurrent_conflict", accept=shares_the_first_answer)
mutant("cancels-all-that-begin-so", "state.cancel_one", stop=cancels_all_that_begin_so)


# What waits for its turn


AT_ONCE = 12


async def runs_few_at_once(self: SmallServer, usual: Any, rollout: Rollout) -> str:
    async with self.__dict__.setdefault("slots", asyncio.Semaphore(AT_ONCE)):
        self.kept.append(rollout)
        if held := self.__dict__.setdefault("held", {}).pop(self.key_of(rollout.init), None):
            SmallServer.note(self, held)
        return str(await usual(rollout))


def notes_what_begins(self: SmallServer, usual: Any, event: Json) -> None:
    if "accepted" in event:
        self.__dict__.setdefault("held", {})[self.key_of(event["accepted"])] = event
    else:
        usual(event)


async def drops_what_waits(self: SmallServer, usual: Any) -> None:
    for task in self.running:
        rollout = self.rollouts.get(task.get_name())
        if rollout is not None and rollout.state == "running" and rollout not in self.kept:
            self.note({"settled": rollout.init, "state": "undeliverable"})
            rollout.state = "undeliverable"
            task.cancel()
    await usual()


mutant(
    "notes-what-begins", "drain.killed", silent=True, agent=runs_few_at_once, note=notes_what_begins, needs="process"
)
mutant(
    "drops-what-waits", "drain.stopped", silent=True, agent=runs_few_at_once, drain=drops_what_waits, needs="process"
)


def notes_failures_as(**instead: Any) -> Any:
    """An ERROR is put on record as something else."""

    def note(self: SmallServer, usual: Any, event: Json) -> None:
        is_error = event.get("result", {}).get("status") == "ERROR"
        usual({"ended": event["ended"], **instead} if is_error else event)

    return note


async def runs_failures_again(self: SmallServer, usual: Any, rollout: Rollout) -> None:
    was_noted, rollout.result = bool(rollout.result), rollout.result if "status" in rollout.result else {}
    await (self.play(rollout) if was_noted and not rollout.result else usual(rollout))


mutant("forgets-failures", "drain.killed", silent=True, note=notes_failures_as(state="undeliverable"), needs="process")
mutant(
    "runs-failures-again",
    "drain.results",
    note=notes_failures_as(result={"again": True}),
    resume=runs_failures_again,
    needs="process",
)
