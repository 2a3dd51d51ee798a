"""Spans of rollouts (OpenTelemetry), after the GenAI semantic conventions. Imported only where tracing is on.

    invoke_agent <agent>        a rollout, child of the trace context that came with its init, or a root
      chat <model>              a call of the policy, retries included
      execute_tool <tool>       a tool call
      deliver_result            a post of the result; it may come long after the rollout has ended

The trace context of ``chat`` and ``deliver_result`` goes with their requests. What messages, arguments and results say
is not put on spans. https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import context as otel_context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.core.offload import call_in_thread
from osmosis_ai.rollout.core.results import ResultSummary
from osmosis_ai.rollout.core.schemas import RolloutStatus, SamplingFields
from osmosis_ai.rollout.core.text import escaped
from osmosis_ai.rollout.core.tracecontext import TRACE_HEADERS
from osmosis_ai.rollout.core.watch import Accepted, Observer, RolloutWatch, ToolOutcome, names_of

FLUSH_SECONDS = 3.0
MAX_NAME_LENGTH = 128
PROVIDER = "osmosis"
OTHER = "other"

_SAMPLING_ATTRIBUTES = {
    name: f"gen_ai.request.{name}"
    for name in ("temperature", "top_p", "top_k", "max_tokens", "seed", "presence_penalty", "frequency_penalty")
}
_USAGE_ATTRIBUTES = {"prompt_tokens": "gen_ai.usage.input_tokens", "completion_tokens": "gen_ai.usage.output_tokens"}
_DEFAULT_MODEL = SamplingFields().model
_propagator = TraceContextTextMapPropagator()


class TracingObserver(Observer):
    """Makes spans of what happens to the rollouts of one app."""

    def __init__(self, agent_name: str, provider: TracerProvider) -> None:
        self.agent_name = agent_name
        self.tracer = provider.get_tracer("osmosis_ai.rollout", PACKAGE_VERSION)
        self._provider = provider

    def accepted(self, rollout: Accepted) -> RolloutWatch:
        parent = _propagator.extract(dict(rollout.trace.headers)) if rollout.trace is not None else Context()
        watch = _RolloutSpans(self, rollout.rollout_id, rollout.server_url, rollout.tools, parent)
        watch.open_rollout()
        return watch

    def recovered(self, rollout_id: str, server_url: str, age_seconds: float) -> RolloutWatch:
        return _RolloutSpans(self, rollout_id, server_url, (), Context())

    async def close(self) -> None:
        if callable(flush := getattr(self._provider, "force_flush", None)):
            # A collector that is gone must not hold up the end of the process; the thread is left behind.
            await asyncio.wait({asyncio.ensure_future(call_in_thread(flush))}, timeout=FLUSH_SECONDS)


class _RolloutSpans(RolloutWatch):
    __slots__ = ("_context", "_observer", "_open", "_server", "_tools", "rollout_id", "span")

    def __init__(
        self,
        observer: TracingObserver,
        rollout_id: str,
        server_url: str,
        tools: Sequence[Any],
        parent: Context,
    ) -> None:
        self.rollout_id = rollout_id
        self.span: Span | None = None
        self._observer = observer
        self._server = _server_attributes(server_url)
        self._tools = tools
        self._context = parent
        self._open: dict[int, Span] = {}

    def open_rollout(self) -> None:
        """Begin the span of the rollout itself."""
        agent = self._observer.agent_name
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": agent,
            "gen_ai.provider.name": PROVIDER,
        }
        self.span = self._span(f"invoke_agent {agent}", SpanKind.SERVER, attributes, self._context)
        self._context = trace.set_span_in_context(self.span, self._context)

    def enters(self, phase: str) -> None:
        if self.span is not None:
            self.span.add_event(phase)

    def agent_begins(self) -> None:
        otel_context.attach(self._context)  # of the agent's own task, and gone with it

    def chat_begins(self, messages: Sequence[Any], sampling: dict[str, Any]) -> Span:
        model = str(sampling.get("model") or _DEFAULT_MODEL)[:MAX_NAME_LENGTH]
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": model,
            "osmosis.chat.num_messages": len(messages),
            **self._server,
            **_numbers(sampling, _SAMPLING_ATTRIBUTES),
        }
        span = self._start(f"chat {escaped(model)}", SpanKind.CLIENT, attributes, self._current())
        TRACE_HEADERS.set(_headers_of(span))
        return span

    def chat_ends(self, chat: Span, reply: Any) -> None:
        usage, reason = getattr(reply, "usage", None), getattr(reply, "finish_reason", None)
        if isinstance(usage, dict):
            chat.set_attributes(_numbers(usage, _USAGE_ATTRIBUTES))
        if isinstance(reason, str):
            chat.set_attribute("gen_ai.response.finish_reasons", [reason])
        self._end(chat)

    def chat_failed(self, chat: Span, error: BaseException) -> None:
        self._end(chat, type(error).__name__)

    def pause_begins(self, cause: str, problem: str, seconds: float) -> None:
        if self.span is not None:
            self.span.add_event("pause", {"osmosis.pause.cause": str(cause)})

    def pause_ends(self, pause: Any, seconds: float, since: float, answered: bool) -> None:
        if self.span is not None:
            self.span.add_event("pause_over", {"osmosis.pause.seconds": seconds, "osmosis.pause.answered": answered})

    def tool_begins(self, name: str, call_id: str) -> tuple[Span, Any]:
        known = name if name in names_of(self._tools) else OTHER
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": escaped(name)[:MAX_NAME_LENGTH],
            "gen_ai.tool.call.id": escaped(call_id)[:MAX_NAME_LENGTH],
            "gen_ai.tool.type": "function",
        }
        current = self._current()
        span = self._start(f"execute_tool {known}", SpanKind.INTERNAL, attributes, current)
        token = otel_context.attach(trace.set_span_in_context(span, current))
        return span, token

    def tool_ends(self, tool: tuple[Span, Any], outcome: ToolOutcome) -> None:
        span, token = tool
        otel_context.detach(token)
        span.set_attribute("osmosis.tool.outcome", str(outcome))
        self._end(span, None if outcome is ToolOutcome.OK else str(outcome))

    def ended(self, summary: ResultSummary, duration_seconds: float) -> None:
        self._end_all("cut_off")
        if self.span is None:  # recovered: the span of the rollout was another process's
            return
        self.span.set_attribute("osmosis.rollout.status", summary.status)
        self.span.set_attribute("osmosis.rollout.outcome", summary.outcome)
        self.span.set_attribute("osmosis.rollout.finish_reason", escaped(summary.finish_reason or "")[:MAX_NAME_LENGTH])
        if summary.reward is not None:
            self.span.set_attribute("osmosis.rollout.reward", summary.reward)
        self._end_rollout(summary.outcome if summary.status == RolloutStatus.ERROR.value else None)

    def attempt_begins(self, attempt: int) -> Span:
        attributes = {"osmosis.delivery.attempt": attempt, **self._server}
        span = self._start("deliver_result", SpanKind.CLIENT, attributes, self._context)
        TRACE_HEADERS.set(_headers_of(span))
        return span

    def attempt_ends(self, mark: Span, verdict: str, error: Exception | None) -> None:
        mark.set_attribute("osmosis.delivery.verdict", verdict)
        self._end(mark, None if error is None else type(error).__name__)

    def gone(self) -> None:
        self._end_all("cut_off")
        self._end_rollout("left_to_next_process")

    def _start(self, name: str, kind: SpanKind, attributes: dict[str, Any], parent: Context) -> Span:
        span = self._span(name, kind, attributes, parent)
        self._open[id(span)] = span
        return span

    def _span(self, name: str, kind: SpanKind, attributes: dict[str, Any], parent: Context) -> Span:
        attributes["gen_ai.conversation.id"] = attributes["osmosis.rollout.id"] = self.rollout_id
        return self._observer.tracer.start_span(name, parent, kind, attributes)

    def _current(self) -> Context:
        """The context of the current task, where the agent may have opened spans of its own."""
        current = otel_context.get_current()
        return current if trace.get_current_span(current).get_span_context().is_valid else self._context

    def _end(self, span: Span, error_type: str | None = None) -> None:
        # Not open any more if the rollout ended before its call did, as when an agent is abandoned.
        if self._open.pop(id(span), None) is not None:
            _close(span, error_type)

    def _end_all(self, error_type: str) -> None:
        while self._open:
            _close(self._open.popitem()[1], error_type)

    def _end_rollout(self, error_type: str | None) -> None:
        if self.span is not None:
            _close(self.span, error_type)
            self.span = None


def _close(span: Span, error_type: str | None) -> None:
    if error_type is not None:
        span.set_attribute("error.type", error_type)
        span.set_status(Status(StatusCode.ERROR, error_type))
    span.end()


def _headers_of(span: Span) -> tuple[tuple[str, str], ...]:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span, Context()))
    return tuple(carrier.items())


def _server_attributes(server_url: str) -> dict[str, Any]:
    parts = urlsplit(server_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname or "", "server.port": port}


def _numbers(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        attribute: values[name]
        for name, attribute in names.items()
        if isinstance(values.get(name), int | float) and not isinstance(values[name], bool)
    }
