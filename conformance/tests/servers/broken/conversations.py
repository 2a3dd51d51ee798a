"""Defects on the way to the model and back: callbacks, the conversation, tool calls."""

import json
from typing import ClassVar
from urllib.parse import urlsplit

from servers.broken.base import BrokenServer
from servers.small import Json, Rollout

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


class CutsIds(BrokenServer):
    finds: ClassVar = {"tools.odd_ids"}

    def answer_calls(self, rollout: Rollout, calls: list[Json]) -> list[Json]:
        return [
            answer | {"tool_call_id": call["id"][:64]}
            for answer, call in zip(super().answer_calls(rollout, calls), calls, strict=True)
        ]
