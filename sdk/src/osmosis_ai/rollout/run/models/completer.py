"""A real model as the trainer's policy: ``osmosis trainer --model`` over any client of ``models``."""

from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.run.errors import ProviderError, SystemicProviderError
from osmosis_ai.rollout.run.models.choice import for_one_run
from osmosis_ai.rollout.run.models.patience import Gate, PatientClient

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.llm_client import CompletionsResult
    from osmosis_ai.rollout.trainer.vocabulary import ChatCall

__all__ = ["ModelCompleter"]

# What a rollout server sends for a trainer's own model, and hosted ones refuse: its name for the model, and token data.
_FOR_TRAINERS_ONLY = frozenset({"model", "logprobs", "top_logprobs", "return_token_ids", "prompt_token_ids"})


class ModelCompleter:
    """Answers the trainer's chat calls with ``client``, which the caller closes; rate limits are waited out.

    Raises:
        CallRefusedError: by each call that the model gave no answer to. It is told to the rollout server as final: what
            another try could cure has been tried, and after a systemic error no model is asked any more.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._gate = Gate()
        self.stop_reason: str | None = None
        """Why the model will answer no other call, where that has shown."""

    async def __call__(self, call: "ChatCall") -> "CompletionsResult":
        """The next message."""
        from osmosis_ai.rollout.trainer.errors import CallRefusedError

        if self.stop_reason is not None:
            raise CallRefusedError(self.stop_reason)
        own = PatientClient(for_one_run(self._client), self._gate)
        own.set_tools(call.tools)
        left_out = _FOR_TRAINERS_ONLY - getattr(self._client, "token_fields", frozenset())
        sampling = {name: value for name, value in call.sampling.items() if name not in left_out and value is not None}
        try:
            return await own.chat_completions(call.messages, **sampling)
        except ProviderError as error:
            if isinstance(error, SystemicProviderError):
                self.stop_reason = str(error)
            raise CallRefusedError(str(error)) from error
