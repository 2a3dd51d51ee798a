"""Defects of results: their content, failures, retries, delivery."""

import asyncio
from typing import ClassVar

import httpx

from servers.broken.base import BrokenServer
from servers.small import ChatError, Json, Rollout

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


class CountsPauses(BrokenServer):
    finds: ClassVar = {"retries.pause"}

    def is_pause(self, response: httpx.Response, completion: Json | None) -> bool:
        return response.status_code != 503 and super().is_pause(response, completion)


class TakesAPageForTheTrainersWord(BrokenServer):
    finds: ClassVar = {"retries.page", "delivery.page"}

    def is_absent(self, response: httpx.Response) -> bool:
        return False


class ScoresWhatWasBrokenOff(BrokenServer):
    finds: ClassVar = {"retries.aborted", "retries.aborted_key", "retries.not_whole", "errors.not_whole"}

    def is_whole(self, completion: Json) -> bool:
        return True


class KeepsTheKeyOfAnAbort(BrokenServer):
    finds: ClassVar = {"retries.aborted_key"}

    def credentials(self, rollout: Rollout, path: str) -> dict[str, str]:
        return super().credentials(rollout, path) | {"Idempotency-Key": f"{len(rollout.messages)}"}


class WantsStop(BrokenServer):
    finds: ClassVar = {"chat.no_finish_reason", "chat.cut_off_reply"}

    def is_whole(self, completion: Json) -> bool:
        return completion["choices"][0].get("finish_reason") in ("stop", "tool_calls")


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


class GivesUpWhenItsMessagesAreRefused(BrokenServer):
    finds: ClassVar = {"delivery.refused"}
    is_silent = True
    leaves_messages_out_after: ClassVar[set[int]] = set()


class WantsA200(BrokenServer):
    finds: ClassVar = {"delivery.created"}

    async def is_delivered(self, rollout: Rollout, result: Json) -> bool:
        response = await self.post(rollout, "/v1/rollout/completed", result)
        return response.status_code == 200


class TakesALimitForAnAcknowledgement(BrokenServer):
    finds: ClassVar = {"delivery.too_many"}
    is_silent = True

    async def is_delivered(self, rollout: Rollout, result: Json) -> bool:
        response = await self.post(rollout, "/v1/rollout/completed", result)
        return response.status_code in (200, 408, 429)
