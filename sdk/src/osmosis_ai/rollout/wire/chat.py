"""Chat calls as bytes: the body of the next one, and what the trainer's reply to it says.

See ``docs/protocol.md``, section 4.
"""

import json
import logging
from itertools import chain
from typing import Any

from pydantic_core import to_json, to_jsonable_python

from osmosis_ai.rollout.core.exceptions import OsmosisProtocolError
from osmosis_ai.rollout.core.jsonable import copy_json
from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.messages import is_readable_reply
from osmosis_ai.rollout.core.sampled import sampled_fields
from osmosis_ai.rollout.core.schemas import MAX_ROLLOUT_ID_LENGTH, CompletionsRequest, MessageDict
from osmosis_ai.rollout.core.transcript import Transcript
from osmosis_ai.rollout.wire.channel import Reply
from osmosis_ai.rollout.wire.finish_reasons import finish_reason_of

logger = logging.getLogger(__name__)

# Ours, or known to the trainer already: never taken from the caller's sampling fields.
_NOT_SAMPLING_FIELDS = frozenset({"rollout_id", "tools"})

_OBJECT, _KEY = frozenset({dict}), frozenset({str})

MAX_KNOWN_HEADS = 256
MAX_KNOWN_BYTES = 4096
_known_heads: dict[bytes, bytes] = {}
"""Of sampling fields as JSON, how they are sent: thousands of rollouts ask alike."""


class ChatBody:
    """The body of a rollout's chat calls. What one has in common with the one before is not encoded again."""

    def __init__(self, rollout_id: str, transcript: Transcript) -> None:
        self._rollout_id = rollout_id
        self._transcript = transcript
        self._sampling: dict[str, Any] | None = None
        self._head = b""

    def encoded(self, messages: list[MessageDict], fields: dict[str, Any]) -> bytes:
        """The call for ``messages`` with the sampling ``fields``, null ones left out.

        Raises:
            pydantic.ValidationError: ``messages`` or a field that the protocol names has the wrong type.
            OsmosisProtocolError: it cannot be written as JSON.
        """
        if fields != self._sampling:
            self._head = self._encode_sampling(fields)
            self._sampling = copy_json(fields)  # a copy: the agent may change a list that it passes each time
        if not _are_messages(messages):
            messages = CompletionsRequest(messages=messages, rollout_id=self._rollout_id).messages
        self._transcript.takes_up(messages)
        try:
            return b"".join((self._head, b',"messages":[', self._transcript.encoded(), b"]}"))
        except ValueError as error:
            raise _not_json(error) from error

    def _encode_sampling(self, fields: dict[str, Any]) -> bytes:
        """Everything of a chat call but its messages, as a JSON object that is not closed yet."""
        for name in _NOT_SAMPLING_FIELDS & fields.keys():
            logger.debug("Rollout %a: chat field %r is not sent.", self._rollout_id, name)
        try:
            text = to_json(fields, inf_nan_mode="constants")
        except (TypeError, ValueError, RecursionError):  # it will be refused below
            text = b""
        head = _known_heads.get(text)
        if head is None or not 0 < len(self._rollout_id) <= MAX_ROLLOUT_ID_LENGTH or self._rollout_id.isspace():
            sampling = {
                name: value for name, value in fields.items() if value is not None and name not in _NOT_SAMPLING_FIELDS
            }
            request = CompletionsRequest(messages=[], rollout_id=self._rollout_id, **sampling)
            named = request.model_dump(exclude={"messages", "rollout_id"}, exclude_none=True)
            head = as_json({**sampling, **named})[:-1]
            if text and len(text) <= MAX_KNOWN_BYTES and len(_known_heads) < MAX_KNOWN_HEADS:
                _known_heads[text] = head
        return b'%b,"rollout_id":%b' % (head, to_json(self._rollout_id))


def completion_in(reply: Reply) -> CompletionsResult:
    """What a trainer generated; only the message must be there.

    Raises:
        NotWholeError: the reply must not be scored.
        ValueError: the reply has no message; the text says what it is instead.
    """
    try:
        body = reply.json()
    except (ValueError, RecursionError) as error:
        raise ValueError("is not JSON") from error
    try:
        choice = body["choices"][0]
        message = choice["message"]
    except (TypeError, LookupError):
        message = None
    if not isinstance(message, dict):
        raise ValueError("has no choices[0].message")
    finish_reason = finish_reason_of(choice)
    if not is_readable_reply(message):
        raise ValueError("has a choices[0].message whose content is neither text nor null")
    usage = body.get("usage")
    if not isinstance(usage, dict):
        usage = {}
    elif None in usage.values():
        usage = {name: count for name, count in usage.items() if count is not None}
    return CompletionsResult(
        message=message,
        usage=usage,
        finish_reason=finish_reason,
        **sampled_fields(body, choice),
    )


def as_json(payload: dict[str, Any]) -> bytes:
    """``payload`` as a JSON object (RFC 8259); the agent's own objects become what pydantic makes of them."""
    try:
        encoded = to_json(payload, inf_nan_mode="constants")
        # pydantic writes NaN as JavaScript does. The two words may be just text, so only then the slow way looks.
        if b"NaN" in encoded or b"Infinity" in encoded:
            json.dumps(to_jsonable_python(payload), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _not_json(error) from error
    return encoded


def _not_json(error: Exception) -> OsmosisProtocolError:
    return OsmosisProtocolError(f"The request cannot be written as JSON: {error}")


def _are_messages(messages: Any) -> bool:
    """Whether it is a list of objects already, so that nothing needs converting or refusing."""
    # Walked in C, as it is at every turn: pydantic takes ten times as long.
    return (
        type(messages) is list
        and _OBJECT.issuperset(map(type, messages))
        and _KEY.issuperset(map(type, chain.from_iterable(messages)))
    )
