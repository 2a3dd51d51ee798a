"""What tests of the client to the trainer share: one rollout, one question, and a stand-in for its HTTP client."""

from typing import Any
from unittest.mock import AsyncMock

ROLLOUT_ID = "run7-000042"
SECRET = "cb-token-1"
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "How many grams are in 3 ounces?"}]


def stand_in(*answers: Any) -> Any:
    """An HTTP client as other code puts one in place: its ``post`` gives or raises one answer after the other."""
    client = AsyncMock()
    client.post = AsyncMock(side_effect=list(answers))
    return client
