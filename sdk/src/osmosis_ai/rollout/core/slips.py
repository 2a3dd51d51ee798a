"""Slips that many make with their first agent, known by what Python says of them, each with what to do."""

import inspect
import json
import linecache
import re
import traceback
from typing import Any, NamedTuple

from osmosis_ai.rollout.core.text import cut, described, redacted, text_of
from osmosis_ai.rollout.core.where import chain_of, place_of_function, places_of

MAX_HINT_CHARACTERS = 500


class _Slip(NamedTuple):
    kind: type[BaseException]
    pattern: str
    """Of the exception's text."""
    advice: str


_AWAIT = "an await is missing: put it before the call that gave this value."
_NO_AWAIT = "what is awaited there is no coroutine: leave the await out, or make the function 'async def'."
_YIELD = "what has a yield is no coroutine: end run with 'return ctx.complete(messages, reward=...)', without yield."
_REPLY = "ctx.chat gives a reply: append reply.message, read reply.content and reply.tool_calls."
_RUN = "the server calls run with the context alone: 'async def run(self, ctx)'."
_SQLITE = "plain tools run in threads: connect with check_same_thread=False, and hold a lock while it is used."
_ASYNCIO_RUN = "the agent runs in an event loop: await the coroutine in place of asyncio.run."
_OTHER_LOOP = "what belongs to an event loop must be made in run, not at import."
_COLUMN = "the row has no such column: metadata.get(...) is for one that may be missing."
_JSON = "what a model writes may be no JSON: a Toolbox reads arguments, and tells the model what is wrong with them."

_SLIPS = (
    _Slip(Exception, r"'coroutine' object|type '?coroutine'?", _AWAIT),
    _Slip(TypeError, r"async_generator can't be used in 'await'", _YIELD),
    _Slip(TypeError, r"can't be used in 'await' expression", _NO_AWAIT),
    _Slip(Exception, r"'CompletionsResult' object", _REPLY),
    _Slip(TypeError, r"\brun\(\) (takes|missing|got)", _RUN),
    _Slip(Exception, r"SQLite objects created in a thread", _SQLITE),
    _Slip(RuntimeError, r"cannot be called from a running event loop|event loop is already running", _ASYNCIO_RUN),
    _Slip(RuntimeError, r"different (event )?loop|Event loop is closed", _OTHER_LOOP),
    _Slip(json.JSONDecodeError, r"", _JSON),
)


def hint_of(error: BaseException) -> str | None:
    """What to do about a known slip, in a sentence; of a group, what its first error is."""
    for each in chain_of(error):
        if isinstance(each, BaseExceptionGroup):
            first = redacted(described(each.exceptions[0]))
            return cut(f"the first error of the group is {first}", MAX_HINT_CHARACTERS)
        for slip in _SLIPS:
            if isinstance(each, slip.kind) and re.search(slip.pattern, text_of(each)):
                return slip.advice
        if isinstance(each, KeyError) and "metadata[" in _raising_line(each):
            return _COLUMN
    return None


def hint_of_value(value: Any) -> str | None:
    """What to do about a value of a known kind that stands where another was wanted."""
    if inspect.iscoroutine(value):
        value.close()  # or Python warns that nobody awaited it
        return _AWAIT
    return _REPLY if type(value).__name__ == "CompletionsResult" else None


def _raising_line(error: BaseException) -> str:
    lines = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return linecache.getline(*lines[-1]) if lines else ""


def told_of(error: BaseException, run: Any = None) -> dict[str, Any]:
    """What a result says of an exception beside its message (``extra_fields``): ``where``, and a ``hint``.

    Of one that arose in the call of ``run`` itself it is where that is written.
    """
    places, hint = places_of(error), hint_of(error)
    if not places and (place := place_of_function(run)) and isinstance(error, TypeError):
        places = [place]
    return {**({"where": places} if places else {}), **({"hint": hint} if hint else {})}
