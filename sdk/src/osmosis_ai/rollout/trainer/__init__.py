"""The other side of the protocol: dispatches rollouts, serves the model, takes the results.

``Trainer`` is the library, ``completer_of`` puts any ``LLMClientProtocol`` behind it, ``ServerKeeper`` runs a rollout
server and starts it again when it dies. ``ScriptedPolicy`` is a script in a model's place, and ``play`` runs
one rollout with it in a test; all but these two needs the extra ``server``.
Every name is imported on first use. Guide: ``docs/trainer-library.md``.
"""

import sys
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from osmosis_ai.rollout.trainer.completions import (
        ToolAwareClient as ToolAwareClient,
        completer_of as completer_of,
    )
    from osmosis_ai.rollout.trainer.errors import (
        CallRefusedError as CallRefusedError,
        InitRefusedError as InitRefusedError,
        ServerEndedError as ServerEndedError,
        TokensError as TokensError,
        TrainerError as TrainerError,
    )
    from osmosis_ai.rollout.trainer.groups import Group as Group, Groups as Groups
    from osmosis_ai.rollout.trainer.play import play as play
    from osmosis_ai.rollout.trainer.policy import (
        Reply as Reply,
        ScriptedPolicy as ScriptedPolicy,
        tool_call as tool_call,
    )
    from osmosis_ai.rollout.trainer.server_keeper import ServerKeeper as ServerKeeper
    from osmosis_ai.rollout.trainer.tokens import (
        TokenRecorder as TokenRecorder,
        TrainingRow as TrainingRow,
        TurnTokens as TurnTokens,
        training_rows as training_rows,
        turns_of_trace as turns_of_trace,
    )
    from osmosis_ai.rollout.trainer.trainer import Trainer as Trainer
    from osmosis_ai.rollout.trainer.vocabulary import (
        ChatCall as ChatCall,
        Completer as Completer,
        Ending as Ending,
        Outcome as Outcome,
        RedispatchPolicy as RedispatchPolicy,
        RetryPolicy as RetryPolicy,
        RolloutOutcome as RolloutOutcome,
        TrainerLimits as TrainerLimits,
    )

_EXPORTS = {
    "osmosis_ai.rollout.trainer.completions": "ToolAwareClient completer_of",
    "osmosis_ai.rollout.trainer.errors": "CallRefusedError InitRefusedError ServerEndedError TokensError TrainerError",
    "osmosis_ai.rollout.trainer.groups": "Group Groups",
    "osmosis_ai.rollout.trainer.play": "play",
    "osmosis_ai.rollout.trainer.policy": "Reply ScriptedPolicy tool_call",
    "osmosis_ai.rollout.trainer.server_keeper": "ServerKeeper",
    "osmosis_ai.rollout.trainer.tokens": "TokenRecorder TrainingRow TurnTokens training_rows turns_of_trace",
    "osmosis_ai.rollout.trainer.trainer": "Trainer",
    "osmosis_ai.rollout.trainer.vocabulary": (
        "ChatCall Completer Ending Outcome RedispatchPolicy RetryPolicy RolloutOutcome TrainerLimits"
    ),
}

__all__, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
