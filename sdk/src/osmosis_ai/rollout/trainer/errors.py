"""Errors of the trainer; each message is one sentence for the user."""

from osmosis_ai.rollout.core.exceptions import OsmosisRolloutError
from osmosis_ai.rollout.core.user_errors import CLIError


class TrainerError(OsmosisRolloutError, CLIError):
    """The trainer cannot do its work: no address to listen on, or a server that cannot be started or reached."""

    code = "trainer"


class InitRefusedError(TrainerError):
    """The server will not accept this rollout; if ``systemic``, it will accept no other either."""

    code = "init_refused"

    def __init__(self, message: str, systemic: bool = False) -> None:
        super().__init__(message)
        self.systemic = systemic


class ServerEndedError(TrainerError):
    """The server that the trainer had started ended by itself; ``output`` is the end of what it wrote."""

    code = "server_ended"

    def __init__(self, message: str, output: list[str]) -> None:
        super().__init__(message)
        self.output = output


class TokensError(TrainerError):
    """A rollout's tokens make no training rows; ``reason`` is why in a few words, the same for all it holds of."""

    code = "tokens"

    def __init__(self, message: str, reason: str = "no training rows") -> None:
        super().__init__(message)
        self.reason = reason


class CallRefusedError(TrainerError):
    """Raised by a ``Completer`` for a chat call it cannot serve as asked; the server gets a 422 with the message."""

    code = "call_refused"
