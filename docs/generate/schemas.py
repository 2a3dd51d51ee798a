"""JSON Schemas (2020-12) of the wire messages, from the SDK's own models.

A model says the types and defaults; ``Extra`` adds what the server checks elsewhere, from the constants it checks with,
and a sentence for each field.
"""

import json
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from docs.generate import server_bodies as bodies
from osmosis_ai.rollout.core import schemas as wire
from osmosis_ai.rollout.core.results import MAX_ERROR_MESSAGE_LENGTH, Outcome
from osmosis_ai.rollout.core.reward_parts import MAX_COMPONENTS, MAX_NAME_CHARACTERS
from osmosis_ai.rollout.core.watch import Phase
from osmosis_ai.rollout.journal import RolloutState
from osmosis_ai.rollout.server import requests as limits

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# The end of the text in every dialect; "$" may stand before a last line break.
END = r"(?![\s\S])"
# As check_server_url: the scheme in any case, a host, no user info, no query, no fragment, no whitespace.
BASE_URL = r"^[Hh][Tt][Tt][Pp][Ss]?://[^/\s?#@<>\\^|\"`{}]+(/[^\s?#]*)?" + END

# What str.strip takes away, spelled out, as dialects differ in what "\\s" is.
_BLANK = r"\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_UNREACHABLE = "|".join(re.escape(name) for name in sorted(limits.UNREACHABLE_IDS))
# As init: its status must have a path.
ROLLOUT_ID = rf"^(?!({_UNREACHABLE}){END})(?=[^\n]*[^{_BLANK}])[^\n]*{END}"

ERROR_CODES: dict[str, tuple[HTTPStatus, str]] = {
    "not_json": (
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "the `Content-Type` is not JSON, or the body has a `Content-Encoding`",
    ),
    "body_too_large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body exceeds `MAX_BODY_BYTES`"),
    "body_too_slow": (HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive within `BODY_TIMEOUT_SECONDS`"),
    "body_cut_off": (HTTPStatus.BAD_REQUEST, "the connection ended within the body"),
    "key_reused": (HTTPStatus.CONFLICT, "the key was used for another request"),
    "at_capacity": (HTTPStatus.TOO_MANY_REQUESTS, "no room; send again after `Retry-After`"),
    "shutting_down": (HTTPStatus.SERVICE_UNAVAILABLE, "the server drains; send again after `Retry-After`"),
    "journal_unavailable": (HTTPStatus.SERVICE_UNAVAILABLE, "nothing can be put on record; send again"),
    "get_failed": (HTTPStatus.INTERNAL_SERVER_ERROR, "the agent could not name its tools; `detail` says why"),
    "foreign_host": (
        HTTPStatus.FORBIDDEN,
        "any: a server without a key, called over loopback by a `Host` that anyone may have",
    ),
    "foreign_origin": (HTTPStatus.FORBIDDEN, "init, cancel: the same, by a page of another `Origin`"),
    "internal_error": (HTTPStatus.INTERNAL_SERVER_ERROR, "a defect of the server; its log has more"),
    "unknown_rollout": (HTTPStatus.NOT_FOUND, "status, cancel: no rollout of that id is known"),
    "not_running": (HTTPStatus.CONFLICT, "cancel: the rollout does not run on this server"),
}


@dataclass(frozen=True)
class Extra:
    """What a model does not say of its message."""

    fields: dict[str, dict[str, Any]]
    """By field: its description, and the bounds that are checked elsewhere."""
    required: tuple[str, ...] | None = None
    """What is always there on the wire, where it is not what the model requires."""
    rules: dict[str, Any] = field(default_factory=dict)
    """Keywords of the whole message."""


def says(description: str, **keywords: Any) -> dict[str, Any]:
    """A field's description and further keywords."""
    return {"description": description, **keywords}


_MESSAGES = "The whole conversation so far, in OpenAI's chat form."

MESSAGES: dict[str, tuple[type[BaseModel], Extra]] = {
    "init-request": (
        wire.RolloutRequest,
        Extra(
            {
                "rollout_id": says(
                    "Names the rollout on every later call; not blank, not `init`, `.` or `..`, without a line feed.",
                    pattern=ROLLOUT_ID,
                ),
                "server_url": says(
                    "Base URL of the trainer, to which the callbacks' paths are joined; no user info, query, fragment.",
                    maxLength=limits.MAX_SERVER_URL_LENGTH,
                    pattern=BASE_URL,
                ),
                "messages": says("The conversation to start from, in OpenAI's chat form; may be empty."),
                "completion_params": says("Sampling fields; sent back with each chat call, unknown ones too."),
                "tool_server_url": says("Reserved; carried to the agent, used by nothing."),
                "max_turns": says("Chat calls the agent may make.", minimum=1, maximum=limits.MAX_TURNS),
                "max_tokens_total": says(
                    "Tokens of the conversation at which the agent stops.", minimum=1, maximum=limits.MAX_TOKENS_TOTAL
                ),
                "metadata": says(
                    "For agent and reward, such as `ground_truth`. Its JSON text has at most 1048576 bytes "
                    "(`OSMOSIS_ROLLOUT_MAX_METADATA_SIZE_BYTES`)."
                ),
                "api_key": says(
                    "Bearer token for the callbacks; a secret. Printable ASCII, no space at either end.",
                    maxLength=limits.MAX_API_KEY_LENGTH,
                    pattern=r"^([!-~]([ -~]*[!-~])?)?" + END,
                ),
                "idempotency_key": says(
                    "Under which the init is accepted once; null or empty means the `rollout_id` is.",
                    maxLength=limits.MAX_IDEMPOTENCY_KEY_LENGTH,
                ),
            }
        ),
    ),
    "init-response": (
        wire.InitResponse,
        Extra(
            {
                "rollout_id": says("That of the init that was accepted under the key."),
                "tools": says("The agent's tools, for the model; JSON Schema keywords of the author are kept."),
            },
            required=("rollout_id", "tools"),
        ),
    ),
    "chat-request": (
        wire.CompletionsRequest,
        Extra(
            {
                "model": says("From `completion_params`, or else the default."),
                "temperature": says("From `completion_params`, or else the default."),
                "top_p": says("From `completion_params`, or else the default."),
                "max_tokens": says("Of one reply. From `completion_params`, or else the default."),
                "stop": says("Left out where there is none."),
                "logprobs": says("From `completion_params`, or else the default."),
                "messages": says(_MESSAGES + " Only ever grows from call to call."),
                "rollout_id": says("As in the init."),
            },
            required=("model", "temperature", "top_p", "max_tokens", "logprobs", "messages", "rollout_id"),
        ),
    ),
    "chat-response": (
        wire.CompletionsResponse,
        Extra(
            {
                "id": says("The trainer's own name for the call."),
                "object": says("OpenAI's name for the form."),
                "created": says("Unix seconds."),
                "model": says("What generated it."),
                "choices": says(
                    "The first one counts; the others are ignored. Token ids and log-probabilities stand in it.",
                    minItems=1,
                ),
                "usage": says("Token counts; what is absent or null counts as 0."),
                "token_ids": says("Where ids stood before; those of `choices[0]` win."),
                "prompt_token_ids": says("Ids of the prompt's tokens; ignored."),
                "logprobs": says("Where log-probabilities stood before; those of `choices[0]` win."),
            },
            required=("choices",),
        ),
    ),
    "completed": (
        wire.RolloutResponse,
        Extra(
            {
                "rollout_id": says("As in the init."),
                "status": says("How it ended."),
                "final_messages": says("The conversation from first to last; of an ERROR what is known of it."),
                "finish_reason": says("The agent's word, such as `stop` or `max_turns`; `error` or `cancelled`."),
                "error_message": says(
                    "Of an ERROR: what went wrong, for people.", maxLength=MAX_ERROR_MESSAGE_LENGTH + len("...")
                ),
                "reward": says("A finite number; only of a COMPLETED rollout, and there only where it has one."),
                "metrics": says("Times in milliseconds and counts of the run; 0 where nothing ran."),
                "extra_fields": says(
                    "`outcome`, and whatever the agent adds.",
                    properties={
                        "outcome": {"type": "string", "enum": [outcome.value for outcome in Outcome]},
                        "reward_components": {
                            "type": "object",
                            "maxProperties": MAX_COMPONENTS,
                            "propertyNames": {"minLength": 1, "maxLength": MAX_NAME_CHARACTERS},
                            "additionalProperties": {"type": "number"},
                        },
                        "messages_rewritten": {"type": "array", "items": {"type": "string"}},
                        "sampling_ignored": {"type": "array", "items": {"type": "string"}},
                        "event_loop_blocked": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {
                                    "place": {"type": "string"},
                                    "seconds": {"type": "number", "minimum": 0},
                                },
                                "required": ["place", "seconds"],
                            },
                        },
                        "messages_left_out": {"type": "integer", "minimum": 1},
                        "messages_refused": {"type": "boolean"},
                        "messages_shortened": {"const": True},
                        "where": {"type": "array", "items": {"type": "string"}},
                        "hint": {"type": "string"},
                    },
                    required=["outcome"],
                ),
            },
            required=("rollout_id", "status", "final_messages", "finish_reason", "extra_fields"),
            rules={
                "if": {"properties": {"status": {"const": "COMPLETED"}}},
                "then": {"properties": {"extra_fields": {"properties": {"outcome": {"const": "success"}}}}},
                "else": {
                    "properties": {
                        "reward": False,
                        "extra_fields": {
                            "properties": {"outcome": {"not": {"const": "success"}}, "reward_components": False}
                        },
                    }
                },
            },
        ),
    ),
    "error": (
        bodies.ErrorBody,
        Extra(
            {
                "detail": says("A sentence; of a 422 the list of what is wrong, which repeats no input."),
                "code": says("Stable, for programs; absent from 401, 404, 405 and 422.", enum=list(ERROR_CODES)),
            }
        ),
    ),
    "health": (
        bodies.Health,
        Extra(
            {
                "status": says("The process serves."),
                "agent_loop": says("Name of the agent."),
                "active_rollouts": says("Of this process: accepted and not finished, queued ones included.", minimum=0),
                "completed_rollouts": says("Of this process: finished within `RECORD_TTL_SECONDS`.", minimum=0),
                "concurrency": says("For [0.3](protocol-0.3.md): how many may run in this process, run and wait."),
                "instance_id": says("For 0.3: one server, the same from all its workers."),
                "process_id": says("As `instance_id`."),
                "lifecycle": says("For 0.3: whether a start would be taken, and how many rollouts have no result."),
            },
            required=("status", "agent_loop", "active_rollouts", "completed_rollouts"),
        ),
    ),
    "ready": (
        bodies.Ready,
        Extra(
            {
                "ready": says("Whether an init would be taken."),
                "code": says("Why not, unless the server drains: nothing can be put on record."),
            }
        ),
    ),
    "rollout-status": (
        bodies.RolloutView,
        Extra(
            {
                "rollout_id": says("The newest rollout of that id."),
                "state": says("One of the table of states in the protocol, section 6."),
                "accepted_at": says("Unix seconds."),
                "started_at": says("Unix seconds; null while it waits. Only before there is a result."),
                "finished_at": says("Unix seconds; when the result was there."),
                "settled_at": says("Unix seconds; when it was delivered, or given up."),
                "delivery_attempts": says("How often the result was sent.", minimum=0),
                "last_error": says("Of the last attempt, if it failed."),
                "result": says("The result in short."),
            }
        ),
    ),
    "cancel-response": (
        bodies.Cancelling,
        Extra({"rollout_id": says("As in the URL."), "state": says("The ERROR result will follow.")}),
    ),
    "cancel-many-request": (
        wire.CancelRequest,
        Extra(
            {
                "ids": says("These; ids that are not running are passed over."),
                "prefix": says("Those whose ids begin so.", minLength=1),
                "all": says("All that run on this server."),
            }
        ),
    ),
    "cancel-many-response": (
        bodies.CancellingMany,
        Extra({"cancelling": says("How many; the ERROR result of each will follow.", minimum=0)}),
    ),
}


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of message ``name``."""
    return schema_of(name, *MESSAGES[name])


def schema_of(name: str, model: type[BaseModel], extra: Extra) -> dict[str, Any]:
    """The JSON Schema of ``model`` as message ``name``.

    Raises:
        ValueError: a field that only one of the two knows.
    """
    generated = model.model_json_schema()
    if unknown := extra.fields.keys() ^ generated["properties"].keys():
        raise ValueError(f"Fields of {name} that the model or its description lacks: {', '.join(sorted(unknown))}")
    for field_name, keywords in extra.fields.items():
        _apply(generated["properties"][field_name], keywords)
    if extra.required is not None:
        generated["required"] = list(extra.required)
    return {"$schema": DIALECT, "$id": f"{name}.schema.json", **generated, **extra.rules}


def _apply(target: dict[str, Any], keywords: dict[str, Any]) -> None:
    """A bound of a nullable field belongs to the alternative that is not null."""
    about_value = {key: value for key, value in keywords.items() if key != "description"}
    alternatives = [part for part in target.get("anyOf", []) if part.get("type") != "null"]
    (alternatives[0] if len(alternatives) == 1 else target).update(about_value)
    target["description"] = keywords["description"]


def files() -> dict[str, str]:
    """The schema files by name."""
    return {f"{name}.schema.json": json.dumps(schema(name), indent=2) + "\n" for name in MESSAGES}


def states() -> set[str]:
    """The states that a rollout may have, by the code."""
    return {
        *(phase.value for phase in Phase if phase is not Phase.DELIVERING),
        *(state.value for state in RolloutState),
    }
