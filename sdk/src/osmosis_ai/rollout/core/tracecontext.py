"""W3C trace context: read from an init, passed on with every call to the trainer. https://www.w3.org/TR/trace-context/

Passing on needs no OpenTelemetry: without it the header goes on unchanged, as the standard asks of one who takes no
part in the trace.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
MAX_TRACESTATE_LENGTH = 512

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The headers ``traceparent`` and ``tracestate``, as they came."""

    traceparent: str
    tracestate: str = ""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What goes on a request."""
        state = ((TRACESTATE, self.tracestate),) if self.tracestate else ()
        return ((TRACEPARENT, self.traceparent), *state)


TRACE_HEADERS: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("TRACE_HEADERS", default=())
"""Trace context for the requests of the current task to its trainer; ASCII."""


def trace_context_of(headers: Mapping[str, str]) -> TraceContext | None:
    """The trace context of a request; ``None`` without one, or where ``traceparent`` is malformed.

    ``headers`` have their names in lower case.
    """
    traceparent = headers.get(TRACEPARENT)
    if traceparent is None or len(traceparent) > 256:
        return None
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None or (found[1] == "00" and found[2]):
        return None
    # Several lines are one list (section 3.3.1): Starlette's mapping gives each, and only the first to ``get``.
    state = ",".join(value.strip() for name, value in headers.items() if name == TRACESTATE)
    usable = len(state) <= MAX_TRACESTATE_LENGTH and state.isascii() and state.isprintable()
    return TraceContext(found[0], state if usable else "")
