"""A policy of the user's: what the model says to an agent that needs replies of its own.

It depends on the messages alone and keeps no state between calls. Its forms, known by their shape, so that one written
with the SDK (``ScriptedPolicy``) fits, and so does one without it:

- a function of the messages, or ``async``;
- a list of replies: the n-th answers a conversation with n - 1 messages of the assistant;
- a class, or an object, with ``chat_completions(messages, **fields)``, whose result has a ``message``; if it has
  ``set_tools`` too, that is told what is offered.

A reply is a text, an assistant message, a tool call (an object with ``function``) or a list of those.
"""

import copy
import importlib
import inspect
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rollout_conformance.text import shortened
from rollout_conformance.vocabulary import ConformanceError, UsageError

FORMS = "a function of the messages, a list of replies, or a class with chat_completions(messages, **fields)"


def load(path: str) -> Any:
    """What ``module:attribute`` names, from the working directory or the Python path.

    Raises:
        UsageError: it names nothing that can be a policy.
        ConformanceError: its module cannot be imported.
    """
    name, colon, attribute = path.rpartition(":")
    if not (colon and name.strip() and attribute.strip()) or name.startswith(".") or "/" in name:
        raise UsageError(f"--policy {path!r} is not of the form module:attribute.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ConformanceError(f"--policy {path} cannot be imported: {_told(error)}.") from error
    try:
        named = getattr(module, attribute)
    except AttributeError:
        raise UsageError(f"--policy {path}: {name} has no {attribute!r}.") from None
    Policy(named)
    return named


class Policy:
    """Asks the user's policy for the model's next message.

    Raises:
        UsageError: ``named`` has none of the forms.
    """

    def __init__(self, named: Any) -> None:
        speaks = callable(getattr(named, "chat_completions", None))
        is_plain_class = inspect.isclass(named) and not speaks
        if is_plain_class or not (speaks or callable(named) or isinstance(named, list | tuple)):
            kind = "a class without chat_completions" if is_plain_class else f"a value of type {type(named).__name__}"
            raise UsageError(f"--policy names {kind}: name {FORMS}.")
        self._named = named
        self._speaks = speaks

    async def reply(self, fields: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The assistant message that answers a chat call with these ``fields``; ``tools`` are those offered.

        Raises:
            ConformanceError: the policy raised, or gave no reply.
        """
        # Its own copy: what it does to the messages must not change what the checks look at.
        own = copy.deepcopy(dict(fields))
        messages = own.pop("messages", [])
        turn = sum(message.get("role") == "assistant" for message in messages if isinstance(message, dict))
        try:
            said = self._said(messages, own, tools, turn)
            if inspect.isawaitable(said):
                said = await said
            return _message(said.message if self._speaks else said, turn)
        except Exception as error:
            raise ConformanceError(f"The policy failed: {_told(error)}.") from error

    def _said(
        self, messages: list[Any], fields: Mapping[str, Any], tools: Sequence[Mapping[str, Any]], turn: int
    ) -> Any:
        if self._speaks:
            # One for each call: a rollout's tools are no other's.
            own: Any = self._named() if inspect.isclass(self._named) else copy.copy(self._named)
            if callable(offer := getattr(own, "set_tools", None)):
                offer([dict(tool) for tool in tools])
            return own.chat_completions(messages, **{name: fields[name] for name in fields if name != "rollout_id"})
        if callable(self._named):
            return self._named(messages)
        if turn >= len(self._named):
            raise IndexError(f"it has {len(self._named)} replies and was asked for number {turn + 1}: add it")
        return self._named[turn]


def _message(said: Any, turn: int) -> dict[str, Any]:
    if isinstance(said, str):
        return {"role": "assistant", "content": said}
    if isinstance(said, Mapping) and "function" not in said:
        return {"content": None, **said, "role": "assistant"}
    calls = [said] if isinstance(said, Mapping) else said
    if not isinstance(calls, list | tuple) or not all(isinstance(c, Mapping) and "function" in c for c in calls):
        kind = "nothing" if said is None else type(said).__name__
        raise TypeError(f"a reply is a text, a message, a tool call or a list of those; it gave {kind}")
    numbered = [{"id": f"call_{turn}_{number}", "type": "function", **call} for number, call in enumerate(calls)]
    return {"role": "assistant", "content": None, "tool_calls": numbered}


def _told(error: BaseException) -> str:
    """``KeyError: 'x' (policy.py:12 in reply)``: the innermost place that is the user's."""
    frames = traceback.extract_tb(error.__traceback__)
    here = Path.cwd()
    own = [
        frame for frame in frames if Path(frame.filename).is_relative_to(here) and "site-packages" not in frame.filename
    ]
    own = [frame for frame in own if Path(frame.filename).parent != Path(__file__).parent]
    what = shortened(f"{type(error).__name__}: {error}".rstrip(": ").rstrip("."))
    if not own:
        return what
    path = Path(own[-1].filename)
    return f"{what} ({path.relative_to(here)}:{own[-1].lineno} in {own[-1].name})"
