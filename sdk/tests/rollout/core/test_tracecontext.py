import pytest
from starlette.datastructures import Headers

from osmosis_ai.rollout.core.tracecontext import TraceContext, trace_context_of

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_both_headers_are_kept_as_they_came() -> None:
    context = trace_context_of({"traceparent": PARENT, "tracestate": "a=1,b=2"})
    assert context == TraceContext(PARENT, "a=1,b=2")
    assert context is not None
    assert context.headers == (("traceparent", PARENT), ("tracestate", "a=1,b=2"))


def test_several_lines_of_tracestate_are_one_list_in_their_order() -> None:
    lines = [("traceparent", PARENT), ("tracestate", "a=1"), ("x", "y"), ("tracestate", " b=2,c=3 ")]
    headers = Headers(raw=[(name.encode(), value.encode()) for name, value in lines])
    assert trace_context_of(headers) == TraceContext(PARENT, "a=1,b=2,c=3")


def test_without_a_state_only_the_parent_goes_on() -> None:
    context = trace_context_of({"traceparent": PARENT})
    assert context is not None
    assert context.headers == (("traceparent", PARENT),)


def test_a_later_version_may_have_more_fields() -> None:
    later = "cc" + PARENT[2:] + "-what-is-yet-to-come"
    assert trace_context_of({"traceparent": later}) == TraceContext(later)


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "x",
        PARENT[:-1],
        PARENT.upper(),
        PARENT + "-more",
        "ff" + PARENT[2:],
        "00-" + "0" * 32 + PARENT[35:],
        PARENT[:36] + "0" * 16 + "-01",
        PARENT + "\r\nAuthorization: mine",
        "cc" + PARENT[2:] + "-a\nb",
        "cc" + PARENT[2:] + "-" + "a" * 300,
    ],
)
def test_what_is_malformed_is_no_context(parent: str) -> None:
    assert trace_context_of({"traceparent": parent}) is None


@pytest.mark.parametrize("state", ["a=1\r\nX: y", "a=\x1b[31m", "ä=1", "a" * 513])
def test_a_state_that_cannot_be_sent_is_dropped(state: str) -> None:
    assert trace_context_of({"traceparent": PARENT, "tracestate": state}) == TraceContext(PARENT)
