"""The secrets that are known in this process, so that no log line shows one; how they are taken out: ``core.text``."""

from contextvars import ContextVar
from dataclasses import dataclass, field

from osmosis_ai.rollout.core import text as texts

MAX_HIDDEN = 256
MIN_SECRET_LENGTH = 6


@dataclass(frozen=True, slots=True)
class LogContext:
    """The rollout a task works for; ``secret`` is its callback key."""

    rollout_id: str
    secret: str | None = field(default=None, repr=False)


LOG_CONTEXT: ContextVar[LogContext | None] = ContextVar("LOG_CONTEXT", default=None)

_hidden: dict[str, None] = {}


def hide(*secrets: str) -> None:
    """Replace each of ``secrets`` wherever it turns up in a log line; the last ``MAX_HIDDEN`` are remembered."""
    for secret in secrets:
        if len(secret) >= MIN_SECRET_LENGTH:
            _hidden[secret] = None
        while len(_hidden) > MAX_HIDDEN:
            del _hidden[next(iter(_hidden))]


def redacted(text: str) -> str:
    """`core.text.redacted` of ``text``, with what was hidden here and the rollout's callback key."""
    context = LOG_CONTEXT.get()
    own = (context.secret,) if context is not None and len(context.secret or "") >= MIN_SECRET_LENGTH else ()
    return texts.redacted(text, (*_hidden, *filter(None, own)))
