"""Defects beside other rollouts, with odd texts, and at the end of the process."""

import asyncio
import json
import os
from typing import Any, ClassVar

from servers.broken.base import BrokenServer
from servers.small import ChatError, Json, Refusal, Rollout

# Load, ids


class SharesAConversation(BrokenServer):
    finds: ClassVar = {"load.concurrent"}

    def completed(self, rollout: Rollout, finish_reason: str) -> Json:
        others = [other for other in self.rollouts.values() if other.messages[-1]["role"] == "assistant"]
        return super().completed(others[0], finish_reason) | {"rollout_id": rollout.init["rollout_id"]}


class LetsAFailureSpread(BrokenServer):
    finds: ClassVar = {"load.beside_failing"}
    broken = False

    async def agent(self, rollout: Rollout) -> str:
        if self.broken:
            raise ChatError("broken since another rollout failed")
        try:
            return await super().agent(rollout)
        except ChatError:
            type(self).broken = True
            raise


class RunsOneAfterTheOther(BrokenServer):
    finds: ClassVar = {"load.beside_waiting"}
    is_silent = True

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.turns = asyncio.Lock()

    async def agent(self, rollout: Rollout) -> str:
        async with self.turns:
            return await super().agent(rollout)


class RefusesWithoutRetryAfter(BrokenServer):
    finds: ClassVar = {"load.overload"}
    capacity = 30

    def require_room(self) -> None:
        try:
            super().require_room()
        except Refusal:
            raise Refusal(503, "Too many rollouts") from None


class RunsWhatItRefuses(BrokenServer):
    finds: ClassVar = {"callbacks.refused"}

    def read(self, body: bytes) -> Json:
        try:
            return super().read(body)
        except Refusal:
            init = self.parse(body)
            if isinstance(init.get("messages"), str):
                self.spawn(self.play(Rollout(init | {"messages": []}, "")))
            raise


class NamesFilesByIds(BrokenServer):
    finds: ClassVar = {"ids.odd"}

    def reply(self, init: Json) -> Json:
        if "/" in init["rollout_id"] or len(init["rollout_id"]) > 200:
            raise Refusal(500, "FileNotFoundError")
        return super().reply(init)


class KnowsOnlyAscii(BrokenServer):
    finds: ClassVar = {"ids.text"}

    def encode(self, body: Json) -> bytes:
        return json.dumps(body, ensure_ascii=False).encode("ascii", "replace")


class HangsOnSurrogates(BrokenServer):
    finds: ClassVar = {"ids.surrogates"}

    def parse(self, body: bytes) -> Json:
        if b"\\ud83d" in body and b"\\ud83d\\u" not in body:
            raise Refusal(500, "UnicodeEncodeError")
        return super().parse(body)


# The process


class DropsRolloutsAtTheEnd(BrokenServer):
    finds: ClassVar = {"drain.stopped"}
    needs = "process"
    is_silent = True

    async def drain(self) -> None:
        await self.close()


class EndsWithAnError(BrokenServer):
    finds: ClassVar = {"drain.stopped"}
    needs = "process"

    async def drain(self) -> None:
        await super().drain()
        os._exit(3)


class ForgetsAtARestart(BrokenServer):
    finds: ClassVar = {"drain.killed"}
    needs = "process"
    is_silent = True

    def take_over(self) -> None:
        pass


class CrashesOnControlCharacters(BrokenServer):
    finds: ClassVar = {"ids.control"}

    def reply(self, init: Json) -> Json:
        if "\x00" in init["rollout_id"]:
            raise Refusal(500, "ValueError: embedded null byte")
        return super().reply(init)
