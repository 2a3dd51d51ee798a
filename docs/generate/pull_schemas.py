"""JSON Schemas of the messages of 0.3 (``docs/protocol-0.3.md``), from the models that the server reads them with."""

import json
from typing import Any

from pydantic import BaseModel

from docs.generate.schemas import BASE_URL, Extra, says, schema_of
from osmosis_ai.rollout.server import requests as limits
from osmosis_ai.rollout.server.pull import bodies

MESSAGES: dict[str, tuple[type[BaseModel], Extra]] = {
    "pull-start-request": (
        bodies.StartRequest,
        Extra(
            {
                "rollout_id": says(
                    "Names the rollout, and is the key under which the start is accepted once. One segment of a path.",
                    pattern=r"^[^/\\]*[^/\\\s][^/\\]*$",
                ),
                "initial_messages": says("The conversation to start from, in OpenAI's chat form; may be empty."),
                "chat_completions_url": says(
                    "Where the policy is, up to and without `/chat/completions`; no user info, query, fragment.",
                    maxLength=limits.MAX_SERVER_URL_LENGTH,
                    pattern=BASE_URL,
                ),
                "llm_api_key": says("Bearer token of the chat calls; a secret.", maxLength=limits.MAX_API_KEY_LENGTH),
                "label": says(
                    "The ground truth: the agent has it as `metadata.ground_truth`; given back in the sample."
                ),
                "metadata": says("For agent and reward. Bounded as an init's."),
                "grade": says("Whether a reward is asked for. If not, reward functions are not called."),
                "agent_timeout_sec": says(
                    "Limit of the agent's run, without the queue, the trainer's pauses and grading that has a limit of "
                    "its own. At most the server's `REQUEST_TIMEOUT_SECONDS`, which is the default; 0 and less is over "
                    "at once, as a `timeout`."
                ),
                "grader_timeout_sec": says(
                    "Limit of its reward functions and judges together, bounded likewise. Without it, the agent's."
                ),
                "extra_fields": says(
                    "`completion_params`, `max_turns` and `max_tokens_total` are those of an init; others are ignored."
                ),
            }
        ),
    ),
    "pull-start-response": (
        bodies.StartReply,
        Extra(
            {
                "rollout_id": says("That of the start."),
                "status": says("`queued`."),
                "polling_lease_token": says("For the header of every poll; a secret. The same for an identical start."),
                "result_wait_timeout_sec": says("How long a poll waits."),
                "polling_lease_timeout_sec": says("How long a rollout goes on without a poll."),
            }
        ),
    ),
    "pull-result": (
        bodies.ResultReply,
        Extra(
            {
                "rollout_id": says("That of the start."),
                "status": says("`success`, `failure` and `cancelled` are ends; after any other ask again."),
                "sample": says(
                    "The conversation and its reward: of a success, and of a failure to grade. Its `extra_fields` are "
                    "those of a result of 0.2, with its `finish_reason`."
                ),
                "err_message": says("What went wrong, for people."),
                "err_category": says("Why it failed, for programs."),
            },
            required=("rollout_id", "status", "sample", "err_message", "err_category"),
        ),
    ),
    "pull-cancel-request": (
        bodies.CancelRollouts,
        Extra(
            {
                "ids": says("These."),
                "prefix": says("Those whose ids begin so; the empty one means all."),
                "all": says("All rollouts of 0.3 on this server."),
            }
        ),
    ),
    "pull-cancel-response": (
        bodies.CancelReply,
        Extra(
            {
                "dispositions": says(
                    "For each id that was named, and each rollout that is stopped, one of two.",
                    additionalProperties={"enum": ["cancelled_running", "not_found"]},
                )
            }
        ),
    ),
}


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of message ``name``."""
    return schema_of(name, *MESSAGES[name])


def files() -> dict[str, str]:
    """The schema files by name."""
    return {f"{name}.schema.json": json.dumps(schema(name), indent=2) + "\n" for name in MESSAGES}
