"""A real model as the trainer's policy: ``osmosis trainer --model`` over any client of ``models``."""

from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.run.models.choice import for_one_run
from osmosis_ai.rollout.run.models.patience import Gate, Patience, PatientClient

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.llm_client import CompletionsResult
    from osmosis_ai.rollout.trainer.vocabulary import ChatCall, Completer

__all__ = ["model_completer"]

# What a rollout server sends for a trainer's own model, and hosted ones refuse: its name for the model, and token data.
_FOR_TRAINERS_ONLY = frozenset({"model", "logprobs", "top_logprobs", "return_token_ids", "prompt_token_ids"})


def model_completer(client: Any, patience: Patience | None = None) -> "Completer":
    """Answers the trainer's chat calls with ``client``, which the caller closes; rate limits are waited out."""
    gate = Gate()

    async def complete(call: "ChatCall") -> "CompletionsResult":
        own = PatientClient(for_one_run(client), gate, patience)
        own.set_tools(call.tools)
        sampling = {
            name: value for name, value in call.sampling.items() if name not in _FOR_TRAINERS_ONLY and value is not None
        }
        return await own.chat_completions(call.messages, **sampling)

    return complete
