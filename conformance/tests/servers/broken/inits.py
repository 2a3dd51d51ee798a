"""Defects of what takes an init: the answer, the key, the body, idempotency."""

import asyncio
import json
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from servers.broken.base import BrokenServer
from servers.small import MAX_BODY_BYTES, Json, Refusal, Rollout

# The init


class RunsBeforeIts202(BrokenServer):
    finds: ClassVar = {"init.at_once"}

    async def accept(self, init: Json) -> Response:
        answer = await super().accept(init)
        await asyncio.wait(self.running)
        return answer


class MakesIdsOfItsOwn(BrokenServer):
    finds: ClassVar = {"init.accepted", "ids.odd"}

    def reply(self, init: Json) -> Json:
        return {**super().reply(init), "rollout_id": "mine"}


class RefusesNulls(BrokenServer):
    finds: ClassVar = {"init.nulls"}

    def rules(self, init: Json) -> dict[str, bool]:
        return super().rules(init) | {"api_key": isinstance(init.get("api_key", ""), str)}


class AnswersWith200(BrokenServer):
    finds: ClassVar = {"init.accepted"}
    is_total = True

    async def accept(self, init: Json) -> Response:
        answer = await super().accept(init)
        answer.status_code = 200
        return answer


class RequiresAnUnknownParameter(BrokenServer):
    finds: ClassVar = {"init.tools"}

    def tools(self) -> list[Json]:
        first, *more = super().tools()
        first["function"]["parameters"] = {**first["function"]["parameters"], "required": ["a", "b", "c"]}
        return [first, *more]


class RefusesUnknownFields(BrokenServer):
    finds: ClassVar = {"init.unknown_fields"}

    def rules(self, init: Json) -> dict[str, bool]:
        rules = super().rules(init)
        return rules | {name: name == "tool_server_url" for name in init if name not in rules}


class RequiresEveryField(BrokenServer):
    finds: ClassVar = {"init.required_only"}

    def rules(self, init: Json) -> dict[str, bool]:
        return super().rules(init) | {"max_turns": "max_turns" in init and super().rules(init)["max_turns"]}


class HasNoHealth(BrokenServer):
    finds: ClassVar = {"http.health"}

    async def health(self, request: Request) -> Response:
        return JSONResponse({"detail": "busy"}, 500)


# Its key


class ForgetsToAuthorize(BrokenServer):
    finds: ClassVar = {"auth.missing", "auth.wrong", "auth.first"}
    needs = "key"

    def authorize(self, header: str) -> None:
        pass


class ComparesTheStartOfAKey(BrokenServer):
    finds: ClassVar = {"auth.wrong"}
    needs = "key"

    def authorize(self, header: str) -> None:
        super().authorize(header[: len("Bearer ") + len(self.api_key or "")])


class CrashesOnOddKeys(BrokenServer):
    finds: ClassVar = {"auth.hostile"}
    needs = "key"

    def authorize(self, header: str) -> None:
        if not header.isascii():
            raise Refusal(500, "Internal Server Error")
        super().authorize(header)


class KnowsOneSpellingOfBearer(BrokenServer):
    finds: ClassVar = {"auth.scheme"}
    needs = "key"

    def authorize(self, header: str) -> None:
        super().authorize(header if header.startswith("Bearer ") else "")


# Bodies


class CrashesOnMissingFields(BrokenServer):
    finds: ClassVar = {"invalid.fields"}

    def read(self, body: bytes) -> Json:
        init = self.parse(body)
        if "messages" not in init or "completion_params" not in init:
            raise Refusal(500, "KeyError")
        return super().read(body)


class DoesNotNameTheField(BrokenServer):
    finds: ClassVar = {"invalid.named"}

    def read(self, body: bytes) -> Json:
        try:
            return super().read(body)
        except Refusal as refusal:
            raise Refusal(refusal.answer.status_code, "The body is wrong") from None


class CallsAnyUrl(BrokenServer):
    finds: ClassVar = {"invalid.server_url", "invalid.odd_url"}

    def is_url(self, url: Any) -> bool:
        return isinstance(url, str)


class CrashesOnWhatIsNoJson(BrokenServer):
    finds: ClassVar = {"invalid.not_json"}

    def parse(self, body: bytes) -> Json:
        try:
            return super().parse(body)
        except Refusal:
            if b"NaN" in body or b"Infinity" in body or b"[[[" in body:
                raise
            raise Refusal(500, "JSONDecodeError") from None


class TakesNaN(BrokenServer):
    finds: ClassVar = {"invalid.nan"}

    def parse(self, body: bytes) -> Json:
        return super().parse(body.replace(b"NaN", b"null").replace(b"-Infinity", b"0").replace(b"Infinity", b"0"))


class ReadsBodiesOfAnySize(BrokenServer):
    finds: ClassVar = {"invalid.body_size"}

    async def body_of(self, request: Request) -> bytes:
        kept = b""
        async for chunk in request.stream():
            kept = kept if len(kept) > MAX_BODY_BYTES else kept + chunk
        return kept


class EchoesTheBody(BrokenServer):
    finds: ClassVar = {"callbacks.secret"}

    def read(self, body: bytes) -> Json:
        try:
            return super().read(body)
        except Refusal as refusal:
            raise Refusal(422, f"{json.loads(bytes(refusal.answer.body))['detail']}: {body!r}") from None


# Idempotency


class StartsEveryInit(BrokenServer):
    finds: ClassVar = {"idempotency.while_running", "idempotency.concurrent", "idempotency.after_completion"}

    async def accept(self, init: Json) -> Response:
        self.rollouts.pop(self.key_of(init), None)
        return await super().accept(init)


class LooksBeforeItLeaps(BrokenServer):
    finds: ClassVar = {"idempotency.concurrent"}

    async def accept(self, init: Json) -> Response:
        known = self.key_of(init) in self.rollouts
        await asyncio.sleep(0.05)
        if not known:
            self.rollouts.pop(self.key_of(init), None)
        return await super().accept(init)


class ForgetsTheKeyAfterTheResult(BrokenServer):
    finds: ClassVar = {"idempotency.after_completion"}

    async def deliver(self, rollout: Rollout, result: Json) -> None:
        await super().deliver(rollout, result)
        self.rollouts.pop(self.key_of(rollout.init), None)


class TakesAnotherBodyUnderAKey(BrokenServer):
    finds: ClassVar = {"idempotency.conflict"}

    def fingerprint(self, init: Json) -> str:
        return ""


class IgnoresIdempotencyKeys(BrokenServer):
    finds: ClassVar = {"idempotency.two_ids", "idempotency.two_keys"}

    def key_of(self, init: Json) -> str:
        return str(init["rollout_id"])


class TakesAnyNumber(BrokenServer):
    finds: ClassVar = {"invalid.bounds"}

    def rules(self, init: Json) -> dict[str, bool]:
        return super().rules(init) | {"max_turns": isinstance(init.get("max_turns", 10), int)}


class CrashesOnNesting(BrokenServer):
    finds: ClassVar = {"invalid.nesting"}

    def parse(self, body: bytes) -> Json:
        try:
            return super().parse(body)
        except Refusal as refusal:
            if isinstance(refusal.__cause__, RecursionError):
                raise Refusal(500, "RecursionError") from None
            raise
