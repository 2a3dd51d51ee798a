import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.collector import Collector, Received
from support.fake_trainer import CHAT_PATH, FakeTrainer
from support.measured_server import measured_server
from support.plain_http import PLAIN
from support.processes import ServingProgram
from support.rollouts import init_body

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRAINER_SPAN_ID = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{TRAINER_SPAN_ID}-01"
SECRET_QUESTION = "How many secrets are there?"


def init(server: ServingProgram, trainer: FakeTrainer, rollout_id: str = "r1", **headers: str) -> Any:
    """Send an init with two turns of two tools each, and give the trainer's result."""
    body = init_body(
        rollout_id,
        server_url=trainer.url,
        messages=[{"role": "user", "content": SECRET_QUESTION}],
        completion_params={"temperature": 0.5, "top_k": 40, "model": "policy-7"},
        metadata={"turns": 2, "tools": ["add", "fail"], "reward": 0.5},
    )
    url = f"http://127.0.0.1:{server.port}/v1/rollout/init"
    assert httpx.post(url, json=body, headers=headers, **PLAIN).status_code == 202
    return trainer.wait_for_result(rollout_id)


def serving(directory: Path, collector: Collector, **variables: str) -> ServingProgram:
    return measured_server(
        directory, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="50", **variables
    )


def named(spans: list[Received], name: str) -> list[Received]:
    return [span for span in spans if span.name == name]


@pytest.fixture
def collector() -> Any:
    with Collector() as collector:
        yield collector


class TestSpans:
    @pytest.fixture
    def spans(self, tmp_path: Path, trainer: FakeTrainer, collector: Collector) -> list[Received]:
        with serving(tmp_path, collector) as server:
            init(server.wait_until_serving(), trainer, traceparent=TRACEPARENT, tracestate="vendor=1")
            return collector.wait_for(8)

    def test_are_a_complete_and_linked_trace(self, spans: list[Received], trainer: FakeTrainer) -> None:
        assert sorted(span.name for span in spans) == [
            "chat policy-7",
            "chat policy-7",
            "deliver_result",
            "execute_tool add",
            "execute_tool add",
            "execute_tool fail",
            "execute_tool fail",
            "invoke_agent measured",
        ]
        assert {span.trace_id for span in spans} == {TRACE_ID}
        (rollout,) = named(spans, "invoke_agent measured")
        assert rollout.parent_id == TRAINER_SPAN_ID
        assert {span.parent_id for span in spans if span is not rollout} == {rollout.span_id}
        assert {span.attributes["osmosis.rollout.id"] for span in spans} == {"r1"}
        for span in spans:
            assert span.ended_at >= span.started_at >= rollout.started_at
        assert all(span.service == "osmosis-rollout-server" for span in spans)

        # The trainer was called on behalf of those very spans.
        for call in trainer.calls:
            name = "chat policy-7" if call.path == CHAT_PATH else "deliver_result"
            expected = {f"00-{TRACE_ID}-{span.span_id}-01" for span in named(spans, name)}
            assert call.trace_context[0] in expected
            assert call.trace_context[1] == "vendor=1"
        assert len({call.trace_context[0] for call in trainer.calls}) == 3

        # Attributes, after the GenAI conventions.
        chat = named(spans, "chat policy-7")[0].attributes
        port = int(trainer.url.rpartition(":")[2])
        expected_attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "policy-7",
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.top_k": 40,
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 5,
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.conversation.id": "r1",
            "server.address": "127.0.0.1",
            "server.port": port,
        }
        assert {name: chat[name] for name in expected_attributes} == expected_attributes
        tool = named(spans, "execute_tool fail")[0]
        assert tool.is_error
        assert tool.attributes["gen_ai.tool.name"] == "fail"
        assert tool.attributes["gen_ai.tool.call.id"] == "call_1"
        assert rollout.events == ["running", "recording", "delivering"]
        assert rollout.attributes["osmosis.rollout.reward"] == 0.5
        assert rollout.attributes["osmosis.rollout.outcome"] == "success"
        assert not rollout.is_error

        assert SECRET_QUESTION not in str(spans)
        assert trainer.reply["content"] not in str(spans)


class TestRollout:
    @pytest.mark.slow
    def test_without_a_context_is_a_root_and_each_its_own_trace(
        self, tmp_path: Path, trainer: FakeTrainer, collector: Collector
    ) -> None:
        with serving(tmp_path, collector, OTEL_SERVICE_NAME="mine") as server:
            server.wait_until_serving()
            init(server, trainer, "one")
            init(server, trainer, "two")
            spans = collector.wait_for(16)
        roots = named(spans, "invoke_agent measured")
        assert [root.parent_id for root in roots] == ["", ""]
        assert len({span.trace_id for span in spans}) == 2
        assert {span.service for span in spans} == {"mine"}

    @pytest.mark.slow
    def test_that_is_cut_off_leaves_no_span_open(
        self, tmp_path: Path, trainer: FakeTrainer, collector: Collector
    ) -> None:
        trainer.hold_chats()
        with serving(tmp_path, collector, OSMOSIS_ROLLOUT_SERVER_DRAIN_SECONDS="0") as server:
            server.wait_until_serving()
            url = f"http://127.0.0.1:{server.port}/v1/rollout/init"
            httpx.post(url, json=init_body("r1", server_url=trainer.url), **PLAIN)
            deadline = time.monotonic() + 60
            while not trainer.chats("r1"):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert server.signal(signal.SIGTERM) == 0
            spans = collector.wait_for(3)
            trainer.release_chats()
        assert sorted(span.name for span in spans) == ["chat default", "deliver_result", "invoke_agent measured"]
        rollout = named(spans, "invoke_agent measured")[0]
        assert rollout.is_error
        assert rollout.attributes["error.type"] == "interrupted"
        assert named(spans, "chat default")[0].attributes["error.type"] == "CancelledError"

    @pytest.mark.slow
    def test_a_collector_that_is_gone_does_not_hold_up_the_end(self, tmp_path: Path, trainer: FakeTrainer) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections, and never answers
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with measured_server(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=url) as server:
                init(server.wait_until_serving(), trainer)
                started = time.monotonic()
                assert server.signal(signal.SIGTERM) == 0
        assert time.monotonic() - started < 45


class TestWithoutOpenTelemetry:
    @pytest.mark.slow
    def test_the_context_is_passed_on_unchanged(self, tmp_path: Path, trainer: FakeTrainer) -> None:
        with measured_server(tmp_path) as server:
            init(server.wait_until_serving(), trainer, traceparent=TRACEPARENT, tracestate="vendor=1")
            init(server, trainer, "r2", traceparent="no trace parent")
        contexts = {call.body["rollout_id"]: call.trace_context for call in trainer.calls}
        assert contexts == {"r1": (TRACEPARENT, "vendor=1"), "r2": (None, None)}

    @pytest.mark.slow
    def test_an_exporter_that_is_none_switches_spans_off(
        self, tmp_path: Path, trainer: FakeTrainer, collector: Collector
    ) -> None:
        with serving(tmp_path, collector, OTEL_TRACES_EXPORTER="none") as server:
            init(server.wait_until_serving(), trainer)
            assert server.signal(signal.SIGTERM) == 0
        assert collector.spans == []
