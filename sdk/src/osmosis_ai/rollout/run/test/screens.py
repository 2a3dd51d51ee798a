"""What the debugger shows. Text from the model, the tools and the dataset is taken literally."""

import json
from collections.abc import Sequence
from typing import Any

from osmosis_ai.rollout.core.base import RolloutResult
from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.messages import get_message_text
from osmosis_ai.rollout.core.reward_parts import known_components
from osmosis_ai.rollout.core.schemas import MessageDict, RolloutMetrics
from osmosis_ai.rollout.core.text import printable
from osmosis_ai.rollout.run.formats import format_tokens
from osmosis_ai.rollout.run.loading import speaker

RULE_COLUMNS = 60

_LABELS = {"system": ("System", "magenta"), "user": ("User", "green"), "assistant": ("Assistant", "blue")}

STEP_HELP = (
    "  n/next or Enter    go on to the next model call",
    "  c/continue         go on to the end of this row without stopping",
    "  m/messages         all messages, the reply included",
    "  t/tools            the tools",
    "  e TEXT             edit: the reply becomes this text, without tool calls",
    "  e call N JSON      edit: the arguments of the reply's N-th tool call",
    "  e tool N TEXT      edit: the N-th tool result of the conversation; the model is asked again",
    "  r/row N            leave this row for row N",
    "  q/quit             leave this row, back to the choice of rows",
    "  ?/help             this list",
)
RESULT_HELP = (
    "  m/messages         all messages",
    "  Enter              back to the choice of rows",
    "  r/row N            go to row N",
)
SELECT_HELP = (
    "  N or row N         run this row",
    "  q/quit             end the session",
    "  ?/help             this list",
)


class Screens:
    """Prints on ``console``."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.say = speaker(console, is_silent=False)

    def say_all(self, lines: Sequence[str]) -> None:
        """Several lines, dimmed."""
        for line in lines:
            self.say(line, "dim")

    def title(self, text: str) -> None:
        """A rule with ``text`` in its middle, and a blank line."""
        self.console.separator(text, RULE_COLUMNS)
        self.say()

    def initial_messages(self, messages: list[MessageDict]) -> None:
        """The conversation before the first call."""
        self.title("Initial Messages")
        for message in messages:
            self.message(message, messages)
            self.say()

    def all_messages(self, messages: list[MessageDict]) -> None:
        """The whole conversation, numbered."""
        self.title("All Messages")
        for index, message in enumerate(messages):
            self.console.print(self.console.format_styled(f"[{index}]", "dim"), end=" ", highlight=False)
            self.message(message, messages)
            self.say()

    def new_messages(self, messages: list[MessageDict], since: int) -> None:
        """What was added since the last call, but for the replies, which were shown."""
        added = [message for message in messages[since:] if message.get("role") != "assistant"]
        if added:
            self.say()
        for message in added:
            self.message(message, messages)
            self.say()

    def tools(self, tools: Sequence[Any]) -> None:
        """Names, descriptions and parameters of the tools, if there are any."""
        if not tools:
            return
        self.title("Available Tools")
        for tool in tools:
            function = tool.function
            self.say(f"  • {function.name}", "cyan")
            self.say(f"    {function.description}", "dim")
            properties = getattr(function.parameters, "properties", None)
            if properties:
                self.say(f"    Parameters: {', '.join(properties)}")
        self.say()

    def message(self, message: MessageDict, conversation: list[MessageDict]) -> None:
        """``[Label] content``, and the tool calls."""
        label, style = _label(message, conversation)
        text = f"[{label}]"
        shown = self.console.format_styled(text, style) if style else self.console.escape(text)
        self.console.print(f"{shown} {self.console.escape(_content(message))}", highlight=False, soft_wrap=True)
        calls = message.get("tool_calls")
        if isinstance(calls, list) and calls:
            self.say()
            self.say("Tool calls:", "yellow")
            for call in calls:
                function = call.get("function") if isinstance(call, dict) else None
                function = function if isinstance(function, dict) else {}
                self.say(f"  • {function.get('name') or 'unknown'}({_arguments(function.get('arguments'))})")

    def reply(
        self, turn: int, message: MessageDict, finish_reason: str | None, conversation: list[MessageDict]
    ) -> None:
        """A reply, when it has come."""
        self.title(f"Turn {turn}: LLM Response")
        self.message(message, conversation)
        if finish_reason and finish_reason != "tool_calls":
            self.say()
            self.say(f"Finish reason: {finish_reason}", "dim")
        self.say()

    def result(
        self, result: RolloutResult | None, error: str | None, duration_seconds: float, metrics: RolloutMetrics
    ) -> None:
        """How a row ended."""
        self.title("Result")
        if result is None or error is not None:
            self.say("Status: ERROR", "red")
            self.say(f"Error: {error}", "red")
        else:
            self.say(f"Status: {result.status}", "green" if result.status == "COMPLETED" else "yellow")
            if result.error_message:
                self.say(f"Error: {result.error_message}", "red")
            if result.reward is not None:
                self.say(f"Reward: {result.reward}")
            for name, value in known_components(result.extra_fields).items():
                self.say(f"  {printable(name)}: {value:g}")
            self.say(f"Finish reason: {result.finish_reason}")
        self.say(f"Duration: {duration_seconds:.2f}s")
        tokens = format_tokens(metrics.prompt_tokens + metrics.response_tokens)
        self.say(f"Tokens: {tokens} ({metrics.num_llm_calls} LLM calls)")
        self.say()


def _label(message: MessageDict, conversation: list[MessageDict]) -> tuple[str, str | None]:
    role = str(message.get("role") or "unknown")
    if role == "tool":
        return f"Tool ({_tool_name(message, conversation)})", "cyan"
    return _LABELS.get(role, (role.capitalize(), None))


def _tool_name(message: MessageDict, conversation: list[MessageDict]) -> str:
    call_id = message.get("tool_call_id")
    for earlier in conversation:
        calls = earlier.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            if isinstance(call, dict) and call.get("id") == call_id and isinstance(call.get("function"), dict):
                return str(call["function"].get("name") or "unknown")
    return str(message.get("name") or "unknown")


def _content(message: MessageDict) -> str:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    return get_message_text(message) or json.dumps(content, ensure_ascii=False, default=str)


def _arguments(arguments: Any) -> str:
    try:
        decoded = json.loads(arguments) if isinstance(arguments, str) else arguments
        pretty = json.dumps(decoded, indent=2, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return str(arguments)
    return pretty.replace("\n", "\n    ")
