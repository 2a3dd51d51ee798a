"""What a model server says of the tokens behind a message: ids, log-probabilities, and which weights sampled them.

It stands where vLLM (``return_token_ids``) and SGLang put it: see ``docs/protocol.md``, section 4.
"""

from collections.abc import Mapping
from typing import Any

_OF_TOKENS = frozenset({"token_ids", "logprobs"})


def sampled_fields(body: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a ``CompletionsResult`` out of the reply ``body`` and its first choice; what is not there is empty.

    Beside the choice, older trainers put ids and log-probabilities into the body.
    """
    if _OF_TOKENS.isdisjoint(choice) and _OF_TOKENS.isdisjoint(body):
        return {"token_ids": [], "logprobs": []}
    fields: dict[str, Any] = {
        "token_ids": _ids(choice.get("token_ids")) or _ids(body.get("token_ids")),
        "logprobs": _logprobs(choice.get("logprobs")) or _logprobs(body.get("logprobs")),
    }
    if fields["token_ids"]:
        fields["prompt_token_ids"] = _ids(body.get("prompt_token_ids")) or _ids(choice.get("prompt_token_ids"))
        fields["weight_versions"] = _versions(body, choice)
    return fields


def put_sampled(body: dict[str, Any], result: Any) -> None:
    """Put what a ``CompletionsResult`` has of it where `sampled_fields` looks first."""
    choice = body["choices"][0]
    if result.token_ids:
        choice["token_ids"] = result.token_ids
    if result.logprobs:
        choice["logprobs"] = {"content": [{"logprob": logprob} for logprob in result.logprobs]}
    if result.prompt_token_ids:
        body["prompt_token_ids"] = result.prompt_token_ids
    if result.weight_versions:
        choice["weight_versions"] = result.weight_versions


def said_of(result: Any) -> dict[str, Any]:
    """The other way: what a ``CompletionsResult`` has of it, by the names there; nothing where it has nothing."""
    names = ("prompt_token_ids", "token_ids", "logprobs", "weight_versions")
    return {name: value for name in names if (value := getattr(result, name, None))}


def _ids(value: Any) -> list[int]:
    return value if isinstance(value, list) and set(map(type, value)) <= {int} else []


def _logprobs(value: Any) -> list[float]:
    """One number a token; none where one of them is missing."""
    match value:
        case {"content": [*tokens]}:
            value = [token.get("logprob") if isinstance(token, dict) else None for token in tokens]
    return value if isinstance(value, list) and set(map(type, value)) <= {int, float} else []


def _versions(body: Mapping[str, Any], choice: Mapping[str, Any]) -> list[int | str]:
    """From first to last, where the server says so; most say one."""
    for place in (choice, choice.get("meta_info"), body.get("metadata"), body):
        if isinstance(place, dict):
            for name in ("weight_versions", "weight_version"):
                said = place.get(name)
                versions: list[Any] = said if isinstance(said, list) else [said]
                if versions and set(map(type, versions)) <= {int, str}:
                    return versions
    return []
