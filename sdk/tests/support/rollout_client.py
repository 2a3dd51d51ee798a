"""What tests of the client to the trainer share: one rollout, one question, and a channel that needs no network."""

from collections.abc import Mapping
from typing import Any

from osmosis_ai.rollout.wire.channel import Reply

ROLLOUT_ID = "run7-000042"
SECRET = "cb-token-1"
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "How many grams are in 3 ounces?"}]


class Scripted:
    """A ``TrainerChannel`` that gives or raises one answer after the other, and keeps what it was asked to send."""

    def __init__(self, *answers: Reply | Exception) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, bytes, dict[str, str], float]] = []
        self.closings = 0

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], limit_seconds: float, *, only_status: bool = False
    ) -> Reply:
        self.sent.append((url, body, dict(headers), limit_seconds))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        self.closings += 1
