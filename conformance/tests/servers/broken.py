"""``SmallServer`` with one defect each; ``finds`` are the checks that must fail because of it, and no others."""

import asyncio
import json
import os
from typing import Any, ClassVar
from urllib.parse import urlsplit

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from support.small_server import MAX_BODY_BYTES, ChatError, Json, Refusal, Rollout, SmallServer


class BrokenServer(SmallServer):
    """Each subclass is registered."""

    finds: ClassVar[set[str]] = set()
    needs: ClassVar[str] = ""
    """``key``: it is started with a key. ``process``: as a process."""
    is_silent: ClassVar[bool] = False
    """Whether the defect shows as something that never comes."""
    is_total: ClassVar[bool] = False
    """Whether nothing works because of it, so that other checks fail too."""
    every: ClassVar[list[type["BrokenServer"]]] = []

    def __init_subclass__(cls) -> None:
        cls.every.append(cls)


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


# Callbacks


class DropsThePathOfServerUrl(BrokenServer):
    finds: ClassVar = {"callbacks.url"}

    def callback_url(self, rollout: Rollout, path: str) -> str:
        parts = urlsplit(rollout.url)
        return f"{parts.scheme}://{parts.netloc}{path}"


class DoublesSlashes(BrokenServer):
    finds: ClassVar = {"callbacks.trailing_slash"}

    def callback_url(self, rollout: Rollout, path: str) -> str:
        return f"{rollout.init['server_url']}{path}"


class SendsTextPlain(BrokenServer):
    finds: ClassVar = {"callbacks.json"}

    def credentials(self, rollout: Rollout, path: str) -> dict[str, str]:
        return {**super().credentials(rollout, path), "Content-Type": "text/plain"}


class ForgetsTheRolloutId(BrokenServer):
    finds: ClassVar = {"callbacks.rollout_id", "chat.reserved"}

    def chat_body(self, rollout: Rollout) -> Json:
        body = super().chat_body(rollout)
        del body["rollout_id"]
        return body


class SendsTheKeyOnChatOnly(BrokenServer):
    finds: ClassVar = {"callbacks.key"}

    def credentials(self, rollout: Rollout, path: str) -> dict[str, str]:
        return super().credentials(rollout, path) if "chat" in path else {}


class ChatsAfterTheEnd(BrokenServer):
    finds: ClassVar = {"callbacks.order"}

    async def deliver(self, rollout: Rollout, result: Json) -> None:
        await super().deliver(rollout, result)
        await self.post(rollout, "/v1/chat/completions", self.chat_body(rollout))


class ReportsTwice(BrokenServer):
    finds: ClassVar = {"callbacks.once"}

    async def deliver(self, rollout: Rollout, result: Json) -> None:
        await super().deliver(rollout, result)
        await super().deliver(rollout, result)


class KeepsFailuresToItself(BrokenServer):
    finds: ClassVar = {"callbacks.every", "errors.refused"}
    is_silent = True

    async def deliver(self, rollout: Rollout, result: Json) -> None:
        if result["status"] == "COMPLETED":
            await super().deliver(rollout, result)


# The conversation


class SendsTheLastMessagesOnly(BrokenServer):
    finds: ClassVar = {"chat.conversation", "chat.append_only"}

    def conversation(self, rollout: Rollout) -> list[Json]:
        return rollout.messages[-2:]


class AddsASystemPrompt(BrokenServer):
    finds: ClassVar = {"chat.conversation"}

    def conversation(self, rollout: Rollout) -> list[Json]:
        return [{"role": "system", "content": "Be nice."}, *rollout.messages]


class RewritesOldMessages(BrokenServer):
    finds: ClassVar = {"chat.append_only"}

    def conversation(self, rollout: Rollout) -> list[Json]:
        older = [message | {"content": "..."} if message["role"] == "tool" else message for message in rollout.messages]
        return [*older[:-2], *rollout.messages[-2:]]


class SamplesAsItLikes(BrokenServer):
    finds: ClassVar = {"chat.sampling", "chat.more_sampling"}

    def chat_body(self, rollout: Rollout) -> Json:
        return super().chat_body(rollout) | {"temperature": 1.0}


class DropsUnknownSampling(BrokenServer):
    finds: ClassVar = {"chat.more_sampling"}

    def chat_body(self, rollout: Rollout) -> Json:
        body = super().chat_body(rollout)
        return {name: value for name, value in body.items() if name != "top_k"}


class CrashesOnNulls(BrokenServer):
    finds: ClassVar = {"chat.null_fields"}

    async def chat(self, rollout: Rollout) -> Json:
        completion = await super().chat(rollout)
        completion["usage"]["prompt_tokens"]
        return completion


class IgnoresMaxTurns(BrokenServer):
    finds: ClassVar = {"chat.max_turns"}

    async def agent(self, rollout: Rollout) -> str:
        rollout.init = rollout.init | {"max_turns": 100}
        return await super().agent(rollout)


# Tools


class NumbersToolCallsItself(BrokenServer):
    finds: ClassVar = {"tools.answered", "tools.parallel"}

    def answer_calls(self, rollout: Rollout, calls: list[Json]) -> list[Json]:
        answers = super().answer_calls(rollout, calls)
        return [answer | {"tool_call_id": f"tool_{n}"} for n, answer in enumerate(answers)]


class AnswersOneOfTheCalls(BrokenServer):
    finds: ClassVar = {"tools.every_tool", "tools.parallel"}

    def answer_calls(self, rollout: Rollout, calls: list[Json]) -> list[Json]:
        return super().answer_calls(rollout, calls)[:1]


class AnswersWithNumbers(BrokenServer):
    finds: ClassVar = {"tools.answered", "tools.parallel"}

    def answer_calls(self, rollout: Rollout, calls: list[Json]) -> list[Json]:
        return [answer | {"content": 4} for answer in super().answer_calls(rollout, calls)]


class CrashesOnMalformedArguments(BrokenServer):
    finds: ClassVar = {"tools.malformed"}

    def tool_result(self, call: Json) -> str:
        json.loads(call["function"]["arguments"] or "{}")
        return super().tool_result(call)


class CrashesOnUnknownTools(BrokenServer):
    finds: ClassVar = {"tools.unknown"}

    def tool_result(self, call: Json) -> str:
        {"add": 1, "shout": 2}[call["function"]["name"]]
        return super().tool_result(call)


# The result


class InventsAStatus(BrokenServer):
    finds: ClassVar = {"completed.shape"}

    def completed(self, rollout: Rollout, finish_reason: str) -> Json:
        result = super().completed(rollout, finish_reason)
        return result | ({"extra_fields": ["none"]} if finish_reason == "stop" else {})


class LeavesOutTheLastReply(BrokenServer):
    finds: ClassVar = {"completed.messages"}

    def completed(self, rollout: Rollout, finish_reason: str) -> Json:
        return super().completed(rollout, finish_reason) | {"final_messages": rollout.messages[:-1]}


class AlwaysSaysStop(BrokenServer):
    finds: ClassVar = {"completed.finish_reason"}

    def completed(self, rollout: Rollout, finish_reason: str) -> Json:
        return super().completed(rollout, "stop")


class RewardsWithNaN(BrokenServer):
    finds: ClassVar = {"completed.reward"}

    def reward(self, rollout: Rollout) -> float:
        return float("nan") if len(rollout.messages) > 4 else super().reward(rollout)


class MeasuresBackwards(BrokenServer):
    finds: ClassVar = {"completed.metrics"}

    def measured(self, rollout: Rollout) -> Json:
        return super().measured(rollout) | {"tool_latency_ms": -0.5}


class CountsOneTooFew(BrokenServer):
    finds: ClassVar = {"completed.counts"}

    def measured(self, rollout: Rollout) -> Json:
        measured = super().measured(rollout)
        return measured | {"num_llm_calls": max(0, measured["num_llm_calls"] - 1)}


# Errors, retries


class RewardsFailures(BrokenServer):
    finds: ClassVar = {"errors.no_reward"}

    def failed(self, rollout: Rollout, error: Exception) -> Json:
        return super().failed(rollout, error) | {"reward": 0.0}


class FailsWithoutAWord(BrokenServer):
    finds: ClassVar = {"errors.message"}

    def failed(self, rollout: Rollout, error: Exception) -> Json:
        return super().failed(rollout, error) | {"error_message": ""}


class CompletesFailures(BrokenServer):
    finds: ClassVar = {"errors.refused", "errors.malformed", "errors.unreachable", "errors.short_message"}

    async def agent(self, rollout: Rollout) -> str:
        try:
            return await super().agent(rollout)
        except ChatError:
            return "stop"


class LosesTheTurnsOfAFailure(BrokenServer):
    finds: ClassVar = {"errors.partial"}

    def failed(self, rollout: Rollout, error: Exception) -> Json:
        return super().failed(rollout, error) | {"final_messages": []}


class NeverRetries(BrokenServer):
    finds: ClassVar = {"retries.server_error", "retries.twice", "retries.too_many", "retries.cut"}

    async def chat(self, rollout: Rollout) -> Json:
        response = await self.post(rollout, "/v1/chat/completions", self.chat_body(rollout))
        while response.status_code == 599 or response.is_success:
            return dict(response.json())
        raise ChatError(f"The trainer answered {response.status_code}")


class GivesUpOnACutConnection(BrokenServer):
    finds: ClassVar = {"retries.cut"}

    async def post(self, rollout: Rollout, path: str, body: Json) -> httpx.Response:
        try:
            return await super().post(rollout, path, body)
        except httpx.TransportError:
            if "chat" in path:
                raise ChatError("The trainer does not answer") from None
            raise


class RetriesWhatIsFinal(BrokenServer):
    finds: ClassVar = {"retries.final"}

    def is_retried(self, status: int) -> bool:
        return status != 200


class IgnoresRetryAfter(BrokenServer):
    finds: ClassVar = {"retries.too_many"}

    async def wait_as_told(self, response: httpx.Response) -> None:
        pass


# Delivery


class DeliversOnce(BrokenServer):
    finds: ClassVar = {"delivery.server_error", "delivery.cut"}
    is_silent = True

    async def deliver(self, rollout: Rollout, result: Json) -> None:
        await self.is_delivered(rollout, result)


class DeliversTwiceAtMost(BrokenServer):
    finds: ClassVar = {"delivery.twice", "delivery.persistent"}
    is_silent = True

    async def deliver(self, rollout: Rollout, result: Json) -> None:
        _ = await self.is_delivered(rollout, result) or await self.is_delivered(rollout, result)


class DeliversFailuresOnce(BrokenServer):
    finds: ClassVar = {"delivery.error_too"}
    is_silent = True

    async def deliver(self, rollout: Rollout, result: Json) -> None:
        if result["status"] == "ERROR":
            await self.is_delivered(rollout, result)
        else:
            await super().deliver(rollout, result)


class LosesPatience(BrokenServer):
    finds: ClassVar = {"delivery.slow"}

    async def is_delivered(self, rollout: Rollout, result: Json) -> bool:
        try:
            async with asyncio.timeout(1):
                return await super().is_delivered(rollout, result)
        except TimeoutError:
            result |= self.failed(rollout, RuntimeError("the trainer is slow"))
            return False


class DowngradesWhatItCannotDeliver(BrokenServer):
    finds: ClassVar = {"delivery.server_error", "delivery.cut", "callbacks.once"}

    async def deliver(self, rollout: Rollout, result: Json) -> None:
        if not await self.is_delivered(rollout, result):
            await super().deliver(rollout, self.failed(rollout, RuntimeError("delivery failed")))


class MeasuresAnewForEachDelivery(BrokenServer):
    finds: ClassVar = {"delivery.server_error", "delivery.cut", "callbacks.once"}

    async def is_delivered(self, rollout: Rollout, result: Json) -> bool:
        return await super().is_delivered(rollout, result | {"metrics": self.measured(rollout)})


class GivesUpSoon(BrokenServer):
    finds: ClassVar = {"delivery.persistent"}
    is_silent = True

    async def deliver(self, rollout: Rollout, result: Json) -> None:
        for _ in range(3):
            if await self.is_delivered(rollout, result):
                break


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
