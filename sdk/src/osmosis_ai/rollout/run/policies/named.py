"""``--policy MODULE:ATTR``: a script of the user's in a model's place, whatever form it has; so are those built in.

Everything that can be seen beforehand is refused before the first run. What it raises is told with its place, and
nobody tries again: a script would fail the same way.
"""

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.loading import import_module_attribute
from osmosis_ai.rollout.core.schemas import MessageDict, tool_as_json
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError
from osmosis_ai.rollout.run.errors import PolicyError, ProviderError
from osmosis_ai.rollout.trainer.counted_calls import CountedCalls
from osmosis_ai.rollout.trainer.errors import CallRefusedError
from osmosis_ai.rollout.trainer.policy import ScriptedPolicy, failure_of_policy

if TYPE_CHECKING:
    from osmosis_ai.rollout.trainer.vocabulary import ChatCall, Completer

FORMS = (
    "a subclass of ScriptedPolicy, a list of replies, a function of the messages, or a class with the method"
    " chat_completions(messages, **kwargs)"
)


def load_policy(path: str) -> "ScriptClient":
    """A client for the script that ``path`` names.

    Raises:
        UsageError: it names nothing that can be a policy.
        CLIError: it cannot be imported or made.
    """
    named: Any = import_module_attribute(path)
    try:
        return ScriptClient(_maker(named, path), path)
    except CLIError:
        raise
    except Exception as error:
        raise CLIError(f"--policy {path} cannot be made. {failure_of_policy(error)}") from error


def policy_completer(client: "ScriptClient") -> "Completer":
    """Answers a trainer's chat calls; a failure is refused, so that nobody asks again."""

    async def complete(call: "ChatCall") -> CompletionsResult:
        own = client.for_one_run()
        own.set_tools(call.tools)
        try:
            return await own.chat_completions(call.messages, **call.sampling)
        except ProviderError as error:
            raise CallRefusedError(str(error)) from error

    return complete


class ScriptClient(CountedCalls):
    """Meets ``LocalLLMClientProtocol`` around what ``make`` gives, a new one for each run."""

    def __init__(self, make: Callable[[], Any], display_name: str) -> None:
        super().__init__()
        self._make = make
        self._policy = make()
        self.display_name = display_name

    def for_one_run(self) -> "ScriptClient":
        """Another, with tools and counters of its own."""
        return ScriptClient(self._make, self.display_name)

    def set_tools(self, tools: Iterable[Any]) -> None:
        """Offer ``tools``, as JSON, to a script that asks for them."""
        if callable(offer := getattr(self._policy, "set_tools", None)):
            offer([tool_as_json(tool) for tool in tools])

    def clear_tools(self) -> None:
        """Offer no tools."""
        self.set_tools([])

    async def chat_completions(self, messages: list[MessageDict], **kwargs: Any) -> CompletionsResult:
        """The script's next message.

        Raises:
            PolicyError: the script raised, or gave no ``CompletionsResult``.
        """
        try:
            result = self._policy.chat_completions(messages, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            if not isinstance(result, CompletionsResult):
                raise TypeError(
                    f"chat_completions gave {type(result).__name__}, not a CompletionsResult; a ScriptedPolicy takes"
                    " texts and tool calls"
                )
        except ProviderError:
            raise
        except Exception as error:
            raise PolicyError(failure_of_policy(error)) from error
        self._count_call(result.usage.get("prompt_tokens") or 0, result.usage.get("completion_tokens") or 0)
        return result


def _maker(named: Any, path: str) -> Callable[[], Any]:
    if callable(getattr(named, "chat_completions", None)):
        if inspect.isclass(named):
            return named
        return lambda: copy.copy(named)
    if isinstance(named, list | tuple):
        return lambda: ScriptedPolicy(named)
    if callable(named) and not inspect.isclass(named):
        try:
            inspect.signature(named).bind([])
        except TypeError:
            raise UsageError(
                f"--policy {path} must take the messages, and nothing else: def {_name(named)}(messages)."
            ) from None
        except ValueError:
            pass  # a builtin that does not tell its signature
        return lambda: ScriptedPolicy(named)
    raise UsageError(f"--policy {path} names {_what(named)}: name {FORMS}.")


def _name(named: Any) -> str:
    return str(getattr(named, "__name__", "reply"))


def _what(named: Any) -> str:
    return "a class that is none" if inspect.isclass(named) else f"a value of type {type(named).__name__}"
