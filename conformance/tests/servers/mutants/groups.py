"""Defects that show only among rollouts of one trainer, or of one prompt, as the samples of a group are."""

import asyncio
import hashlib
import json
from typing import Any

from servers.model import ChatError, Json, Rollout
from servers.mutants.mechanism import mutant
from servers.small import SmallServer


def of_its_trainer(self: SmallServer, rollout: Rollout) -> list[Rollout]:
    """Those that run, the oldest first."""
    return [one for one in self.rollouts.values() if one.url == rollout.url and one.state == "running"]


async def one_at_a_time(self: SmallServer, usual: Any, rollout: Rollout) -> str:
    while of_its_trainer(self, rollout)[0] is not rollout:  # noqa: ASYNC110 - a state is all there is
        await asyncio.sleep(0.01)
    return str(await usual(rollout))


async def delivers_one_at_a_time(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    async with self.__dict__.setdefault(rollout.url, asyncio.Lock()):
        await usual(rollout, result)


async def gives_up_a_trainer(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    if self.__dict__.get(rollout.url):
        raise ChatError("This trainer has refused a call before")
    try:
        return dict(await usual(rollout))
    except ChatError:
        self.__dict__[rollout.url] = True
        raise


async def asks_once_for_a_prompt(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    asked = rollout.url + json.dumps(rollout.messages)
    if asked not in self.__dict__:
        self.__dict__[asked] = asyncio.ensure_future(usual(rollout))
    return dict(await self.__dict__[asked])


async def resumes_the_newest(self: SmallServer, usual: Any, rollout: Rollout) -> None:
    if rollout.result or of_its_trainer(self, rollout)[-1] is rollout:
        await usual(rollout)


mutant("runs-one-of-a-trainer-at-a-time", "load.beside_waiting", silent=True, agent=one_at_a_time)
mutant("delivers-one-at-a-time-to-a-trainer", "load.beside_owed", silent=True, deliver=delivers_one_at_a_time)
mutant("gives-up-a-trainer", "load.beside_failing", chat=gives_up_a_trainer)
mutant("asks-once-for-a-prompt", "load.concurrent", chat=asks_once_for_a_prompt)
mutant("has-ten-connections", "load.concurrent", silent=True, max_connections=10)
mutant(
    "makes-keys-of-the-conversation",
    "chat.own_key",
    beside="load.concurrent",
    call_key=lambda s, usual, r: hashlib.sha256(json.dumps(r.messages).encode()).hexdigest(),
)
mutant("resumes-one-of-a-trainer", "drain.killed", silent=True, resume=resumes_the_newest, needs="process")
