from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Histogram
from support.fake_trainer import FakeTrainer
from support.measured_agent import MeasuredAgent
from support.rollouts import (
    Gate,
    ScriptedAgent,
    client_of,
    eventually,
    init_body,
    lifespan_of,
    post_init,
    settings_of,
    until,
)
from support.scrapes import Scrape

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.results import summary_of
from osmosis_ai.rollout.core.watch import Accepted
from osmosis_ai.rollout.observe import instruments
from osmosis_ai.rollout.observe.instruments import MAX_TOOLS
from osmosis_ai.rollout.observe.metrics import MetricsObserver
from osmosis_ai.rollout.server.app import create_app


async def scrape(app: FastAPI, **headers: str) -> Scrape:
    async with client_of(app) as client:
        answer = await client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return Scrape(answer.text)


async def until_gone(app: FastAPI) -> Scrape:
    """The metrics once no rollout is left."""
    return await eventually(lambda: scrape(app), lambda found: found.total("osmosis_rollouts") == 0)


@asynccontextmanager
async def serving(agent: Any = None, **server: Any) -> AsyncIterator[FastAPI]:
    quick = {"retry_base_delay": 0.01, "retry_max_delay": 0.05, "max_retries": 0}
    app = create_app(agent or MeasuredAgent(), settings=settings_of(server=server, client=quick))
    async with lifespan_of(app):
        yield app


async def drive(app: FastAPI, trainer: FakeTrainer, rollout_id: str = "r", **metadata: Any) -> Scrape:
    """One rollout, and the metrics after it."""
    answer = await post_init(app, init_body(rollout_id, server_url=trainer.url, metadata=metadata))
    assert answer.status_code == 202
    await trainer.result(rollout_id)
    return await until_gone(app)


class TestRollouts:
    async def test_are_counted_from_init_to_acknowledgement(self, trainer: FakeTrainer) -> None:
        async with serving() as app:
            await drive(app, trainer, "one", turns=2, reward=0.25)
            found = await drive(app, trainer, "two", turns=3, reward=-0.75)
        assert found("osmosis_inits_accepted_total") == 2
        ended = {"status": "COMPLETED", "outcome": "success", "finish_reason": "stop"}
        assert found("osmosis_rollouts_ended_total", **ended) == 2
        assert found("osmosis_rollout_duration_seconds_count") == 2
        assert found("osmosis_rollout_queue_seconds_count") == 2
        assert found("osmosis_rollout_turns_sum") == 5
        assert found("osmosis_rollout_turns_bucket", le="2.0") == 1
        assert found("osmosis_rollout_reward_count") == 2
        assert found("osmosis_rollout_reward_bucket", le="0.0") == 1
        assert found("osmosis_rollout_reward_points_total", sign="positive") == 0.25
        assert found("osmosis_rollout_reward_points_total", sign="negative") == 0.75
        assert found("osmosis_llm_latency_seconds_count", outcome="ok") == 5
        assert found("osmosis_llm_tokens_total", kind="prompt") == 50
        assert found("osmosis_llm_tokens_total", kind="response") == 25
        assert found("osmosis_delivery_attempts_total", verdict="acknowledged") == 2
        assert found("osmosis_delivery_latency_seconds_count") == 2
        for operation in ("accept", "finish", "settle"):
            assert found("osmosis_journal_latency_seconds_count", operation=operation) == 2

    async def test_show_the_state_they_are_in(self, trainer: FakeTrainer) -> None:
        gate = Gate()
        async with serving(ScriptedAgent(gate), max_concurrent_rollouts=2) as app:
            for number in range(5):
                await post_init(app, init_body(f"r{number}", server_url=trainer.url))
            await until(lambda: gate.running == 2)
            found = await scrape(app)
            assert found("osmosis_rollouts", state="running") == 2
            assert found("osmosis_rollouts", state="queued") == 3
            assert found("osmosis_rollout_slots") == 2
            gate.open()
            found = await until_gone(app)
        assert found.total("osmosis_rollouts_ended_total") == 5

    @pytest.mark.parametrize(("versions", "updates"), [([[7], [7]], 0), ([[7], [8, 10]], 3), ([["a"], ["b", "a"]], 2)])
    def test_say_how_stale_their_first_token_was_at_the_last(self, versions: Any, updates: int) -> None:
        observer = MetricsObserver("agent", slots=1)
        for _ in range(2):
            rollout = observer.accepted(Accepted("r", "http://trainer.test", []))
            rollout.enters("running")
            for of_turn in versions:
                reply = CompletionsResult({}, [1], [], {}, "stop", weight_versions=of_turn)
                rollout.chat_ends(rollout.chat_begins([], {}), reply)
            rollout.ended(summary_of({"status": "COMPLETED", "extra_fields": {}}), 1.0)
        samples = {s.name: s.value for metric in observer.registry.collect() for s in metric.samples}
        assert samples["osmosis_rollout_weight_updates_count"] == 2
        assert samples["osmosis_rollout_weight_updates_sum"] == 2 * updates

    async def test_that_fail_carry_no_reward(self, trainer: FakeTrainer) -> None:
        async with serving() as app:
            found = await drive(app, trainer, **{"raise": "broken"})
        ended = {"status": "ERROR", "outcome": "agent_error", "finish_reason": "error"}
        assert found("osmosis_rollouts_ended_total", **ended) == 1
        assert found("osmosis_rollout_reward_count") == 0

    async def test_cancelled_while_queued_have_no_turns(self, trainer: FakeTrainer) -> None:
        gate = Gate()
        async with serving(ScriptedAgent(gate), max_concurrent_rollouts=1) as app:
            for rollout_id in ("running", "queued"):
                await post_init(app, init_body(rollout_id, server_url=trainer.url))
            await until(lambda: gate.running == 1)
            async with client_of(app) as client:
                await client.post("/v1/rollout/queued/cancel")
            await trainer.result("queued")
            gate.open()
            found = await until_gone(app)
        assert found.total("osmosis_rollouts_ended_total") == 2
        assert found("osmosis_rollout_turns_count") == 1
        assert found("osmosis_rollout_queue_seconds_count") == 1

    async def test_whose_client_cannot_be_made_end_as_llm_errors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(**fields: Any) -> Any:
            raise RuntimeError("no client")

        monkeypatch.setattr("osmosis_ai.rollout.server.app.OsmosisLLMClient", broken)
        async with serving() as app:
            await post_init(app, init_body())
            found = await until_gone(app)
        assert found("osmosis_rollouts_ended_total", status="ERROR", outcome="llm_error", finish_reason="error") == 1


class TestLabels:
    @pytest.mark.parametrize("reason", ["stop", "length", "max_turns", "tool_calls", "content_filter"])
    async def test_finish_reasons_that_are_known_have_their_own(self, trainer: FakeTrainer, reason: str) -> None:
        async with serving() as app:
            found = await drive(app, trainer, finish_reason=reason)
        assert found.values("finish_reason") == {reason}

    async def test_other_finish_reasons_share_one(self, trainer: FakeTrainer) -> None:
        async with serving() as app:
            for number in range(5):
                found = await drive(app, trainer, f"r{number}", finish_reason=f"because {number}\n")
        assert found.values("finish_reason") == {"other"}

    async def test_tools_are_told_apart_by_name_and_outcome(self, trainer: FakeTrainer) -> None:
        async with serving() as app:
            found = await drive(app, trainer, turns=2, tools=["add", "add", "fail", "refuse", "hang"])
        count = "osmosis_tool_latency_seconds_count"
        assert found(count, tool="add", outcome="ok") == 4
        assert found(count, tool="fail", outcome="error") == 2
        assert found(count, tool="refuse", outcome="error") == 2
        assert found(count, tool="hang", outcome="timeout") == 2
        assert found.total(count) == 10
        assert found("osmosis_tool_latency_seconds_sum", tool="hang", outcome="timeout") >= 0.1

    async def test_a_tool_that_the_model_invented_is_other(self, trainer: FakeTrainer) -> None:
        async with serving() as app:
            found = await drive(app, trainer, tools=["add", "rm", 'x"}\n\x1b[31m', ""])
        assert found.values("tool") == {"add", "other"}

    async def test_the_number_of_tools_is_bounded(self, trainer: FakeTrainer) -> None:
        from osmosis_ai.rollout.core.watch import Accepted, ToolOutcome
        from osmosis_ai.rollout.observe.metrics import MetricsObserver

        observer = MetricsObserver("agent", 1)
        for number in range(3 * MAX_TOOLS):
            name = f"tool_{number}"
            tools = [{"type": "function", "function": {"name": name}}]
            watch = observer.accepted(Accepted("r", trainer.url, tools))
            watch.tool_ends(watch.tool_begins(name, ""), ToolOutcome.OK)
        text, _ = observer.render("")
        found = Scrape(text.decode())
        assert len(found.values("tool")) == MAX_TOOLS + 1
        assert found("osmosis_tool_latency_seconds_count", tool="other", outcome="ok") == 2 * MAX_TOOLS


class TestChat:
    @pytest.mark.parametrize(
        ("status", "outcome"), [(500, "server_error"), (404, "refused"), (422, "refused"), (0, "unreachable")]
    )
    async def test_a_failed_call_tells_how(self, trainer: FakeTrainer, status: int, outcome: str) -> None:
        trainer.chat_answers.append(status)
        async with serving() as app:
            found = await drive(app, trainer)
        assert found("osmosis_llm_latency_seconds_count", outcome=outcome) == 1
        assert found("osmosis_llm_latency_seconds_count", outcome="ok") == 0

    async def test_a_call_that_is_cut_off_is_cancelled(self, trainer: FakeTrainer) -> None:
        trainer.hold_chats()
        async with serving() as app:
            await post_init(app, init_body("r", server_url=trainer.url))
            await trainer.chat_call("r")
            async with client_of(app) as client:
                await client.post("/v1/rollout/r/cancel")
            await trainer.result("r")
            found = await until_gone(app)
            trainer.release_chats()
        assert found("osmosis_llm_latency_seconds_count", outcome="cancelled") == 1


class TestDelivery:
    async def test_what_is_not_acknowledged_waits_and_ages(self, trainer: FakeTrainer) -> None:
        trainer.completed_answers.extend([503] * 1000)
        async with serving(flush_seconds=0.0, drain_seconds=0.0) as app:
            await post_init(app, init_body("r", server_url=trainer.url))
            found = await eventually(lambda: scrape(app), lambda found: found("osmosis_delivery_backlog") == 1)
            assert found("osmosis_rollouts", state="delivering") == 1
            young = found("osmosis_delivery_oldest_seconds")
            found = await eventually(
                lambda: scrape(app), lambda found: found("osmosis_delivery_oldest_seconds") > young > 0
            )
            trainer.completed_answers.clear()
            found = await until_gone(app)
        assert found("osmosis_delivery_attempts_total", verdict="unanswered") >= 1
        assert found("osmosis_delivery_attempts_total", verdict="acknowledged") == 1
        assert found("osmosis_delivery_backlog") == 0
        assert found("osmosis_delivery_oldest_seconds") == 0

    async def test_what_is_refused_is_no_backlog(self, trainer: FakeTrainer) -> None:
        trainer.completed_answers.append(400)
        async with serving() as app:
            await post_init(app, init_body("r", server_url=trainer.url))
            await trainer.first_post("r")
            found = await until_gone(app)
        assert found("osmosis_delivery_attempts_total", verdict="refused") == 1
        assert found("osmosis_delivery_backlog") == 0

    async def test_what_an_earlier_process_left_is_delivered_and_counted(
        self, trainer: FakeTrainer, tmp_path: Any
    ) -> None:
        journal = str(tmp_path / "journal.db")
        trainer.completed_answers.extend([503] * 1000)
        async with serving(journal=journal, flush_seconds=0.0, drain_seconds=0.0) as app:
            await post_init(app, init_body("r", server_url=trainer.url))
            await trainer.first_post("r")
        trainer.completed_answers.clear()
        async with serving(journal=journal) as app:
            await trainer.result("r")
            found = await until_gone(app)
        assert found("osmosis_inits_accepted_total") == 0
        assert found("osmosis_delivery_attempts_total", verdict="acknowledged") == 1
        assert found("osmosis_journal_latency_seconds_count", operation="claim_abandoned") >= 1


class TestInits:
    async def test_repeats_start_nothing(self, trainer: FakeTrainer) -> None:
        async with serving() as app:
            await drive(app, trainer)
            found = await drive(app, trainer)
        assert found("osmosis_inits_accepted_total") == 1
        assert found("osmosis_inits_repeated_total") == 1

    async def test_refusals_tell_why(self, trainer: FakeTrainer) -> None:
        async with serving(max_body_bytes=1024) as app:
            await drive(app, trainer)
            await post_init(app, init_body("r", server_url=trainer.url, max_turns=3))
            await post_init(app, init_body("", server_url=trainer.url))
            await post_init(app, init_body("s", server_url="ftp://x"))
            await post_init(app, init_body("t", messages=[{"role": "user", "content": "x" * 2000}]))
            async with client_of(app) as client:
                await client.post("/v1/rollout/init", content=b"{}", headers={"content-type": "text/plain"})
            found = await scrape(app)
        reasons = {"key_reused": 1, "invalid": 2, "body_too_large": 1, "not_json": 1}
        assert {reason: found("osmosis_inits_refused_total", reason=reason) for reason in reasons} == reasons
        assert found.total("osmosis_inits_refused_total") == 5

    async def test_without_the_key_and_without_room_and_with_broken_tools(self) -> None:
        gate = Gate()
        app = create_app(
            ScriptedAgent(gate),
            settings=settings_of(server={"max_concurrent_rollouts": 1, "max_queued_rollouts": 0}),
            api_key="the-key-of-it",
        )
        key = "Bearer the-key-of-it"
        async with lifespan_of(app):
            await post_init(app)
            await post_init(app, init_body("a"), authorization=key)
            await post_init(app, init_body("b"), authorization=key)
            found = await scrape(app, authorization=key)
            gate.open()
        assert found("osmosis_inits_refused_total", reason="unauthorized") == 1
        assert found("osmosis_inits_refused_total", reason="at_capacity") == 1
        async with serving(ScriptedAgent(tools=lambda request: 1 / 0)) as app:
            await post_init(app)
            found = await scrape(app)
        assert found("osmosis_inits_refused_total", reason="get_failed") == 1


class TestExposition:
    async def test_is_prometheus_text_or_openmetrics_as_asked(self) -> None:
        async with client_of(create_app(ScriptedAgent())) as client:
            plain = await client.get("/metrics")
            open_metrics = await client.get("/metrics", headers={"accept": "application/openmetrics-text"})
        assert plain.headers["content-type"].startswith("text/plain; version=")
        assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
        assert open_metrics.text.endswith("# EOF\n")

    async def test_each_app_counts_its_own(self, trainer: FakeTrainer) -> None:
        async with serving() as one, serving() as other:
            await drive(one, trainer)
            assert (await scrape(one))("osmosis_inits_accepted_total") == 1
            assert (await scrape(other))("osmosis_inits_accepted_total") == 0

    async def test_tells_of_the_process_and_the_version(self) -> None:
        found = await scrape(create_app(MeasuredAgent()))
        assert found("process_resident_memory_bytes") > 1_000_000
        assert found.values("agent") == {"measured"}

    async def test_a_loop_that_is_held_up_shows(self) -> None:
        import time

        async with serving() as app:
            time.sleep(0.4)  # noqa: ASYNC251 - the very mistake that is measured
            found = await eventually(
                lambda: scrape(app), lambda found: found("osmosis_event_loop_lag_max_seconds") > 0.1
            )
        assert found("osmosis_event_loop_lag_seconds_count") >= 1


def test_a_distribution_counts_as_the_library_s_histogram_does() -> None:
    registries = [CollectorRegistry(), CollectorRegistry()]
    kinds = (Histogram, instruments._Distribution)
    for kind, registry in zip(kinds, registries, strict=True):
        histogram = kind("h", "h", registry=registry, buckets=(-1.0, 0.0, 0.5, 1.0))
        for value in (-2.0, -1.0, 0.0, 0.25, 0.5, 0.50001, 1.0, 7.0, float("inf")):
            histogram.observe(value)
    counts = [
        [sample for metric in registry.collect() for sample in metric.samples if not sample.name.endswith("_created")]
        for registry in registries
    ]
    assert counts[0] == counts[1]
