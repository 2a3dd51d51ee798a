"""Which part of a record is the prompt and which the truth, for records as other tools write them.

A column named as ours, in any case, wins; before it only what ``--columns`` says. What is then missing is looked for
under the names that are usual (``USUAL``), in any case too: GSM8K's ``question`` and ``answer``; ``prompt`` or
``messages`` as a list of chat messages, and ``reward_model.ground_truth``, as TRL and verl have them; ShareGPT's
``conversations``, with ``from`` and ``value``. What was taken is not repeated among the further columns.
"""

import json
import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from osmosis_ai.rollout.core.messages import get_message_role, get_message_text

REQUIRED_COLUMNS = ["ground_truth", "user_prompt", "system_prompt"]
PROMPT_MESSAGES = "prompt_messages"
"""The prompt as a list of chat messages, in place of the two texts."""
_PROMPTS = {"user_prompt", PROMPT_MESSAGES}
TARGETS = (*REQUIRED_COLUMNS, PROMPT_MESSAGES)

USUAL = {
    "user_prompt": ("question", "problem", "prompt", "query", "instruction"),
    PROMPT_MESSAGES: ("prompt", "messages", "conversations"),
    "ground_truth": ("answer", "reward_model.ground_truth", "solution", "target", "label"),
    "system_prompt": ("system",),
}
_TYPED = ":json"
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
"""ShareGPT's, and the chat API's."""
_IN_PYTHON = re.compile(r"\s*+(?:array\()?+\[\s*+\{'(?:role|content)'\s*+:")
"""What a column of messages becomes in a table of text, unless it is written as JSON."""


@dataclass(frozen=True, slots=True)
class Source:
    """A column, or a value within one, as in ``reward_model.ground_truth``.

    ``is_json``: the first text on the way is JSON; what is in it is as it is.
    """

    name: str
    is_json: bool = False

    def of(self, record: Mapping[str, Any]) -> Any:
        """The value.

        Raises:
            KeyError: the record has none.
            ValueError: it is no JSON, though it is said to be.
        """
        parts, value, is_read = [self.name], record, not self.is_json
        if self.name not in record:
            parts = self.name.split(".")
        for part in parts:
            if not isinstance(value, Mapping) or part not in value:
                raise KeyError(self.name)
            value = value[part]
            if not is_read and isinstance(value, str):
                value, is_read = _read(value), True
        return value


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON, as --columns says: {error}") from None


def parsed(text: str | None) -> dict[str, Source]:
    """What ``--columns`` says: ``user_prompt=question,ground_truth=answer:json``.

    Raises:
        ValueError: the text is of another form, or names a target twice or one that is none.
    """
    chosen: dict[str, Source] = {}
    for part in (text or "").split(","):
        target, _, name = (piece.strip() for piece in part.partition("="))
        if not part.strip():
            continue
        if target not in TARGETS or not name.removesuffix(_TYPED) or target in chosen:
            raise ValueError(
                f"--columns: {part.strip()!r} is not TARGET=COLUMN, once for each of {', '.join(TARGETS)}; COLUMN may"
                f" be a path such as reward_model.ground_truth, and {_TYPED} behind it reads the text as JSON."
            )
        chosen[target] = Source(name.removesuffix(_TYPED), name.endswith(_TYPED))
    return chosen


def arranged(
    record: dict[str, Any], own: Mapping[str, str], chosen: Mapping[str, Source]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The record with its prompt and truth under our names, where they are found, and what the record calls them.

    Args:
        own: our names, and the columns that are spelled so in any case.
        chosen: as ``parsed`` gives it.

    Raises:
        ValueError: a text is no JSON, or what has a usual name can be no prompt or truth; the message begins with its
            column.
    """
    found: dict[str, Any] = {}
    places: dict[str, str] = {}
    unfit: dict[str, tuple[str, Any]] = {}
    in_any_case = {name.lower(): name for name in record}
    for target in TARGETS:
        # A question in words is the prompt: the messages beside it may be the whole conversation.
        if target == PROMPT_MESSAGES and target not in chosen and "user_prompt" in found:
            continue
        sources = [chosen[target]] if target in chosen else [Source(own[target])] if target in own else []
        if not sources and not _is_settled(target, own, chosen):
            sources = [Source(name if name in record else in_any_case.get(name, name)) for name in USUAL[target]]
        for source in sources:
            try:
                value = _as_chat(source.of(record))
            except KeyError:
                continue
            except ValueError as error:
                raise ValueError(f"{source.name!a} {error}") from None
            if isinstance(value, str) and _IN_PYTHON.match(value):
                raise ValueError(
                    f"{source.name!a} holds messages as Python shows them, which is no JSON: write them with json.dumps"
                )
            if target in chosen or target in own or _fits(target, value):
                found[target] = value
                places[target] = source.name
                break
            if not isinstance(value, str):
                unfit.setdefault(target, (source.name, value))
    if not found.keys() & _PROMPTS:
        for name, value in (unfit[target] for target in USUAL if target in unfit and target in _PROMPTS):
            raise ValueError(
                f"{name!a} must be a text or a list of chat messages, one of the user's among them, got"
                f" {'null' if value is None else type(value).__name__}"
            )
    system = found.get("system_prompt", "")
    if system is None or (isinstance(system, str) and not system.strip()):
        found["system_prompt"] = ""  # as a table has what is not there
    rest = {name: value for name, value in record.items() if name not in places.values() and name not in own.values()}
    found = _from_messages(found)
    conversation = places.get(PROMPT_MESSAGES) or places.get("user_prompt")
    if "ground_truth" in unfit and "ground_truth" not in found:
        raise ValueError(f"{unfit['ground_truth'][0]!a} cannot be null, as it is the ground truth")
    return found | rest, {target: places.get(target) or conversation or target for target in TARGETS}


def _is_settled(target: str, own: Mapping[str, str], chosen: Mapping[str, Source]) -> bool:
    """Whether the prompt is named already, so that no other column is to be taken for it."""
    return target in _PROMPTS and bool(_PROMPTS & (own.keys() | chosen.keys()))


def _fits(target: str, value: Any) -> bool:
    if target == PROMPT_MESSAGES:
        return is_conversation(value)
    if target == "ground_truth":
        return value is not None and not isinstance(value, bytes)
    return (isinstance(value, str) and not is_conversation(_json_of(value))) or is_parts(value)


def proposal(missing: Collection[str], row: Mapping[str, Any]) -> str:
    """What to give ``--columns`` for a record that lacks our columns ``missing``, quoted as a shell needs it.

    What holds a conversation, or a ground truth within JSON, is known by that; one column that is left is the one that
    is missing. For anything else there is ``COLUMN``.
    """
    spare = [name for name in row if name not in TARGETS and _can_be_said(name)]
    missing, chosen = list(missing), []
    for name in list(spare):
        value = row[name]
        source, said = (_json_of(value), f"{name}{_TYPED}") if isinstance(value, str) else (value, name)
        source = _as_chat(source)
        if is_conversation(source):
            wanted, place = "user_prompt", said
        elif isinstance(source, Mapping) and source.get("ground_truth") is not None and "." not in name:
            wanted, place = "ground_truth", f"{name}.ground_truth{said[len(name) :]}"
        else:
            continue
        if wanted in missing:
            missing.remove(wanted)
            spare.remove(name)
            chosen.append(f"{PROMPT_MESSAGES if wanted == 'user_prompt' else wanted}={place}")
            if wanted == "user_prompt" and "ground_truth" in missing and source[-1].get("role") == "assistant":
                missing.remove("ground_truth")  # the conversation has it
    is_clear = len(missing) == len(spare) == 1 and _fits(missing[0], row[spare[0]])
    return shlex.quote(",".join([*chosen, *(f"{target}={spare[0] if is_clear else 'COLUMN'}" for target in missing)]))


def _can_be_said(name: str) -> bool:
    """Whether ``--columns`` can have the name."""
    return name == name.strip() != "" and name.isprintable() and "," not in name and not name.endswith(_TYPED)


def _json_of(text: str) -> Any:
    """What ``text`` holds if it is a JSON list or object, else ``None``."""
    try:
        return json.loads(text) if text.lstrip()[:1] in ("[", "{") else None
    except (ValueError, RecursionError):
        return None


def _as_chat(value: Any) -> Any:
    """ShareGPT's messages as chat messages; anything else as it is, calls of tools among them."""
    if not isinstance(value, list):
        return value
    chat = []
    for message in value:
        match message:
            case {"from": str(role), "value": str(text)} if role in _ROLES:
                chat.append({"role": _ROLES[role], "content": text})
            case _:
                return value
    return chat


def is_conversation(value: Any) -> bool:
    """Whether it is a list of chat messages, the user's among them."""
    return (
        isinstance(value, list)
        and all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in value)
        and any(get_message_role(message) == "user" for message in value)
    )


def is_parts(value: Any) -> bool:
    """Whether it is the content of a message in parts: text, images."""
    return isinstance(value, list) and bool(value) and all(isinstance(part, dict) and "type" in part for part in value)


def prompts_of(messages: list[dict[str, Any]]) -> dict[str, str]:
    """The texts that a conversation begins with, under their names in a dataset."""
    texts: dict[str, str] = {}
    for message in messages:
        column = f"{get_message_role(message)}_prompt"
        if column in REQUIRED_COLUMNS:
            texts.setdefault(column, get_message_text(message))
    return texts


def _from_messages(found: dict[str, Any]) -> dict[str, Any]:
    """What ``PROMPT_MESSAGES`` says, under the other names too: a conversation that has its answer gives the truth."""
    if is_parts(found.get("user_prompt")):
        system = found.get("system_prompt")
        before = [{"role": "system", "content": system}] if isinstance(system, str) and system else []
        found[PROMPT_MESSAGES] = [*before, {"role": "user", "content": found.pop("user_prompt")}]
    messages: Any = found.get(PROMPT_MESSAGES)
    if not is_conversation(messages):
        return found
    last = max(index for index, message in enumerate(messages) if get_message_role(message) == "user")
    if "ground_truth" not in found and get_message_role(messages[-1]) == "assistant":
        found["ground_truth"] = get_message_text(messages[-1])
    prompt = messages[: last + 1]
    if (system := found.get("system_prompt")) and "system_prompt" not in prompts_of(prompt):
        prompt = [{"role": "system", "content": system}, *prompt]
    return {**found, "system_prompt": "", **prompts_of(prompt), PROMPT_MESSAGES: prompt}
