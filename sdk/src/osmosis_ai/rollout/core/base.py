"""What an agent author writes against: the agent loop, its context, and its result.

The server builds one ``RolloutContext`` a rollout and awaits ``RolloutAgentLoop.run(context)``. One agent loop serves
many rollouts at once, so ``run`` keeps its state in local variables. See ``docs/write-your-own-agent.md``.
"""

import inspect
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from osmosis_ai.rollout.core.chat_watch import ChatWatch as ChatWatch, Trace as Trace
from osmosis_ai.rollout.core.exceptions import JudgeError
from osmosis_ai.rollout.core.grading import is_graded, while_grading
from osmosis_ai.rollout.core.loop_blocks import LoopBlock
from osmosis_ai.rollout.core.resources import Resources
from osmosis_ai.rollout.core.reward_parts import REWARD_COMPONENTS, checked_components, split_reward
from osmosis_ai.rollout.core.schemas import (
    MessageDict,
    OpenAIFunctionToolSchema,
    RolloutMetrics,
    RolloutRequest,
)
from osmosis_ai.rollout.core.text import escaped
from osmosis_ai.rollout.core.trace.writer import TraceWriter
from osmosis_ai.rollout.core.transcript import Transcript

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from osmosis_ai.rollout.core.judge import Judge
    from osmosis_ai.rollout.core.llm_client import CompletionsResult, LLMClientProtocol
    from osmosis_ai.rollout.core.openai_access import OpenAIAccess

logger = logging.getLogger(__name__)

T = TypeVar("T")
MAX_IGNORED_NAMED = 10


@dataclass
class RolloutResult:
    """How an agent loop ended; made by ``RolloutContext.complete`` or ``error``.

    ``extra_fields`` travels to the trainer as it is; it must be JSON.
    """

    status: str
    final_messages: list[dict[str, Any]]
    finish_reason: str
    error_message: str | None = None
    metrics: RolloutMetrics | None = None
    reward: float | None = None
    extra_fields: dict[str, Any] = field(default_factory=dict)


@dataclass
class RolloutContext:
    """One rollout as its agent loop sees it: the request, the tools, and the policy to call."""

    request: RolloutRequest
    tools: list[OpenAIFunctionToolSchema]
    llm: "LLMClientProtocol"
    _start_time: float = field(default=0.0, repr=False)
    _tool_latency_ms: float = field(default=0.0, repr=False)
    _num_tool_calls: int = field(default=0, repr=False)
    _context_tokens: int = field(default=0, init=False, repr=False, compare=False)
    _debug_dir: str | None = field(default=None, repr=False)
    trace: "Trace | None" = field(default=None, init=False, repr=False, compare=False)
    """Where ``log_event`` writes; a file of its own by default."""
    transcript: Transcript = field(default_factory=Transcript, init=False, repr=False, compare=False)
    """The conversation as it is known from outside the agent."""
    watcher: ChatWatch = field(default=ChatWatch(), init=False, repr=False, compare=False)
    """Who is told of every chat call."""
    _openai: "OpenAIAccess | None" = field(default=None, init=False, repr=False, compare=False)
    _judge: "Judge | None" = field(default=None, init=False, repr=False, compare=False)
    resources: Resources | None = field(default=None, init=False, repr=False, compare=False)
    """What ``enter`` has opened; closed by who runs the agent."""
    sampling_ignored: tuple[str, ...] = field(default=(), init=False, repr=False, compare=False)
    """The request's sampling settings that a chat call left out or replaced."""
    loop_blocks: tuple[LoopBlock, ...] = field(default=(), init=False, repr=False, compare=False)
    """Times that the agent blocked the event loop."""

    async def enter(self, resource: AbstractAsyncContextManager[T] | AbstractContextManager[T]) -> T:
        """Open something for this rollout alone, such as a copy of a database: what ``async with`` would give.

        It is closed when the rollout ends: after success, failure, a time limit, a cancel or a shutdown, the last
        entered first. A plain context manager is entered and left in a thread.

        Raises:
            TypeError: ``resource`` is no context manager; ``contextlib.closing`` makes one of what can be closed.
        """
        if self.resources is None:
            self.resources = Resources()
        return await self.resources.enter(resource)

    async def chat(self, messages: list[MessageDict], **kwargs: Any) -> "CompletionsResult":
        """Generate the next message.

        ``messages`` is the whole conversation so far; from call to call it only grows. The request's sampling
        settings are not added: pass ``**ctx.request.completion_params``. A call that ignores one of them is told of.

        Raises:
            OsmosisRolloutError: as ``OsmosisLLMClient.chat_completions`` does.
            TypeError: the policy's ``chat_completions`` is not a coroutine function.
        """
        if not isinstance(messages, list | tuple):
            raise TypeError(
                f"ctx.chat takes the whole conversation, a list of messages, got {type(messages).__name__}."
            )
        if kwargs != self.request.completion_params:
            self._look_at_sampling(kwargs)
        self.tell_of_rewrite(self.transcript.sending(messages))
        sent_count = len(messages)
        messages = self.transcript.outgoing
        chat = self.watcher.chat_begins(messages, kwargs)
        try:
            reply = self.llm.chat_completions(messages, **kwargs)
            if not inspect.isawaitable(reply):
                raise TypeError(f"{type(self.llm).__name__}.chat_completions must be a coroutine function (async def).")
            result = await reply
        except BaseException as error:
            if isinstance(error, Exception):
                self.transcript.error = error
            self.watcher.chat_failed(chat, error)
            raise
        if isinstance(message := getattr(result, "message", None), dict):  # a stand-in may reply with anything
            self.transcript.replied(message, sent_count)
        self.watcher.chat_ends(chat, result)
        self._count_tokens(getattr(result, "usage", None))
        return result

    def _look_at_sampling(self, kwargs: dict[str, Any]) -> None:
        """Note which settings of the request a chat call leaves out or replaces; told once a rollout."""
        asked = self.request.completion_params
        ignored = [
            name for name, value in asked.items() if value is not None and (name not in kwargs or kwargs[name] != value)
        ]
        if ignored and not self.sampling_ignored:
            self.sampling_ignored = tuple(ignored[:MAX_IGNORED_NAMED])
            self.tell_of_sampling(self.sampling_ignored)

    def tell_of_sampling(self, ignored: tuple[str, ...]) -> None:
        """Put which of the request's sampling settings a chat call ignored into the log."""
        logger.warning(
            "Rollout %a: a chat call ignored the request's %s: the trainer's sampling settings do not apply. "
            "Pass **ctx.request.completion_params.",
            self.request.rollout_id,
            ", ".join(map(escaped, ignored)),
        )

    async def judge(self, prompt: str | list[MessageDict], **sampling: Any) -> str:
        """What a model that grades answers to ``prompt``, a text or messages; ``sampling`` goes along as it is.

        Not the policy, and nothing that a trainer sees: an OpenAI-compatible endpoint of the author's, with its own
        deadline and budget of calls (``OSMOSIS_ROLLOUT_JUDGE_*``). Let what it raises escape: the rollout is then an
        ERROR, outcome ``reward_error``, without a reward.

        Raises:
            JudgeError: no whole answer came in time, the budget is used up, or no judge is configured.
        """
        if self._judge is None:
            from osmosis_ai.rollout.core.judge import Judge

            self._judge = Judge(log=self.log_event)
        try:
            with while_grading():
                return await self._judge.ask(prompt, **sampling)
        except JudgeError as error:
            self.transcript.error = error
            raise

    @property
    def messages(self) -> list[MessageDict]:
        """The conversation so far as it was recorded, the last reply included: a copy.

        What an agent that does not keep the messages itself, as one of a framework, gives to ``complete``.
        """
        return self.transcript.messages()

    def openai_client(self) -> "AsyncOpenAI":
        """An OpenAI client, the same each time, whose chat calls are this rollout's; without a socket.

        The model samples by the request's ``completion_params``, whatever a call says, and knows the tools of
        ``get_tools``. For frameworks: ``docs/frameworks.md``. To be called in the event loop of ``run``.

        Raises:
            ImportError: the extra ``openai`` is not installed.
        """
        return self._openai_access().client()

    def openai_base_url(self) -> str:
        """The same for whatever speaks HTTP on this machine, such as a subprocess: an address that ends in ``/v1``.

        It is on the loopback interface, wants ``openai_api_key``, and is dead when the rollout has ended.
        """
        return self._openai_access().address().base_url

    def openai_api_key(self) -> str:
        """The key of ``openai_base_url``, of this rollout alone."""
        return self._openai_access().address().api_key

    def _openai_access(self) -> "OpenAIAccess":
        if self._openai is None:
            from osmosis_ai.rollout.core.openai_access import OpenAIAccess

            self._openai = OpenAIAccess(self)
        return self._openai

    def close(self) -> None:
        """End what the rollout has lent out; for whoever runs it, when ``run`` has ended."""
        if self._openai is not None:
            self._openai.close()

    def tell_of_rewrite(self, problem: str | None) -> None:
        """Put what the agent rewrote, if anything, into log and trace."""
        if problem is not None:
            logger.warning("Rollout %a: %s", self.request.rollout_id, escaped(problem))
            self.log_event("messages_rewritten", problem=problem)

    @property
    def context_tokens(self) -> int:
        """The tokens of the conversation: the prompt of a chat call and its reply, of the call that had the most.

        So it never falls. Where the trainer leaves the prompt out it is the sum of the replies, and 0 where it counts
        nothing.
        """
        return self._context_tokens

    def _count_tokens(self, usage: Any) -> None:
        usage = usage if isinstance(usage, dict) else {}
        before = usage.get("prompt_tokens") or self._context_tokens
        self._context_tokens = max(self._context_tokens, before + (usage.get("completion_tokens") or 0))

    def complete(
        self,
        final_messages: list[MessageDict],
        finish_reason: str = "stop",
        reward: float | Mapping[str, float | None] | None = None,
        reward_components: Mapping[str, float | None] | None = None,
    ) -> RolloutResult:
        """The result of a rollout that ran to its end; the list is copied.

        ``reward_components`` are named numbers that the reward is made of, at most 32; a trainer trains on none of
        them. ``reward`` may be what a reward function gave with its parts: ``{"reward": 0.75, "format": 1.0}``.

        Raises:
            RewardError: a part is no finite number, or such a dict has no ``reward``.
        """
        if not is_graded():  # in place of a score there may be something that is none
            reward = reward_components = None
        value, components = split_reward(reward)
        components |= checked_components(reward_components or {})
        return RolloutResult(
            status="COMPLETED",
            final_messages=list(final_messages),
            finish_reason=finish_reason,
            metrics=self._build_metrics(),
            reward=value,
            extra_fields={REWARD_COMPONENTS: components} if components else {},
        )

    def error(self, error_message: str, final_messages: list[MessageDict] | None = None) -> RolloutResult:
        """The result of a rollout that failed; it carries no reward."""
        return RolloutResult(
            status="ERROR",
            final_messages=list(final_messages or []),
            finish_reason="error",
            error_message=error_message,
            metrics=self._build_metrics(),
        )

    def metrics_so_far(self) -> RolloutMetrics | None:
        """The rollout's metrics; ``None`` where the LLM client cannot give its own."""
        try:
            return self._build_metrics()
        except Exception:
            logger.exception("Rollout %a: the LLM client gave no metrics.", self.request.rollout_id)
            return None

    def record_tool_call(self, latency_ms: float = 0.0) -> None:
        """Count one tool call and its duration in milliseconds."""
        self._num_tool_calls += 1
        self._tool_latency_ms += latency_ms

    @property
    def debug_enabled(self) -> bool:
        """Whether ``log_event`` writes anything."""
        return bool(self._debug_dir)

    def log_event(self, event_type: str, **data: Any) -> None:
        """Append one line to the rollout's trace file; does nothing without a trace directory, and never raises.

        On a server the line can be read within a second, and before the trainer has the result; elsewhere at once.

        The line is a JSON object of ``event``, ``rollout_id``, ``data`` in order, and ``time`` (unix seconds); those
        three names are reserved. Values JSON cannot express are written through ``str()``.
        """
        if not self._debug_dir:
            return
        if self.trace is None or self.trace.directory != self._debug_dir:
            self.trace = TraceWriter(self._debug_dir, self.request.rollout_id)
        self.trace.write(event_type, data)

    def _get_debug_file_path(self) -> str | None:
        return TraceWriter(self._debug_dir, self.request.rollout_id).path if self._debug_dir else None

    def _build_metrics(self) -> RolloutMetrics:
        llm = self.llm.get_metrics()
        elapsed_ms = (time.monotonic() - self._start_time) * 1000 if self._start_time > 0 else 0.0
        return RolloutMetrics(
            total_latency_ms=elapsed_ms,
            llm_latency_ms=llm.llm_latency_ms,
            tool_latency_ms=self._tool_latency_ms,
            num_llm_calls=llm.num_llm_calls,
            num_tool_calls=self._num_tool_calls,
            prompt_tokens=llm.prompt_tokens,
            response_tokens=llm.response_tokens,
            max_context_tokens=llm.max_context_tokens if isinstance(llm, RolloutMetrics) else 0,
        )


class RolloutAgentLoop(ABC):
    """An agent: its name, its tools, and the loop that drives them.

    A concrete subclass sets the class attribute ``name`` and implements ``get_tools`` and ``run``; a class that still
    has an abstract method may leave the name to its subclasses.

    Raises:
        TypeError: when the class is created without a name, or instantiated with a method missing.
    """

    name: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not getattr(cls, "name", None) and not _has_abstract_methods(cls):
            raise TypeError(f"Agent loop class {cls.__name__} must define a 'name' class attribute.")

    @abstractmethod
    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        """The tools offered for ``request``; called once, before the rollout starts."""

    @abstractmethod
    async def run(self, ctx: RolloutContext) -> RolloutResult:
        """Run one rollout.

        Start from a copy of ``ctx.request.messages`` and only append to it. An exception that escapes makes the server
        report an ERROR result.
        """

    def get_default_tools(self) -> list[OpenAIFunctionToolSchema]:
        """The tools for a request that asks for nothing in particular (``rollout_id="discovery"``)."""
        request = RolloutRequest(
            rollout_id="discovery", server_url="http://localhost", messages=[], completion_params={}
        )
        return self.get_tools(request)


def _has_abstract_methods(cls: type) -> bool:
    # ABCMeta fills in __abstractmethods__ only after __init_subclass__ has run.
    names = {name for base in cls.__mro__ for name in vars(base)}
    return any(getattr(getattr(cls, name, None), "__isabstractmethod__", False) for name in names)
