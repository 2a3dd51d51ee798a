import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response
from support.scripted_server import (
    COMPLETED_PATH,
    Rollout,
    ScriptedServer,
    succeed,
)
from support.trainer_runs import QUESTION, QUICK_RETRY, arithmetic, request, trainer_for

from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.trainer import (
    Ending,
    RetryPolicy,
    RolloutOutcome,
    Trainer,
    TrainerError,
    TrainerLimits,
)
from osmosis_ai.rollout.trainer.listener import bind_socket, url_of


@pytest.mark.parametrize(("key", "sent"), [(" server-key\n", "server-key"), (None, None), ("", None)])
def test_a_key_is_what_the_server_takes_it_for(key: str | None, sent: str | None) -> None:
    assert Trainer(arithmetic, server_url="http://127.0.0.1:1", server_api_key=key)._server_api_key == sent


@pytest.mark.parametrize("key", ["a key", "osm\nkey", "caf\xe9", " "])
def test_a_key_that_no_header_can_carry_is_refused_before_anything_is_sent(key: str) -> None:
    with pytest.raises(ValueError, match="server_api_key must be printable ASCII without spaces"):
        Trainer(arithmetic, server_url="http://127.0.0.1:1", server_api_key=key)


def requests(count: int) -> Iterator[RolloutRequest]:
    return (request(number) for number in range(count))


async def run_all(trainer: Trainer, count: int) -> tuple[dict[str, RolloutOutcome], str | None]:
    outcomes: list[RolloutOutcome] = []
    stop_reason = await trainer.run(requests(count), outcomes.append)
    return {outcome.request.rollout_id: outcome for outcome in outcomes}, stop_reason


async def calculate(rollout: Rollout) -> None:
    """A small agent: one tool turn, then the answer."""
    first = (await rollout.chat(QUESTION, temperature=0.5, seed=7)).json()["choices"][0]["message"]
    messages = [*QUESTION, first, {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "3"}]
    last = (await rollout.chat(messages)).json()["choices"][0]
    reward = float(last["message"]["content"].endswith("#### 3"))
    await rollout.complete(
        reward=reward, finish_reason=last["finish_reason"], final_messages=[*messages, last["message"]]
    )


class TestARun:
    async def test_every_rollout_ends_in_one_outcome_with_what_the_trainer_saw(self) -> None:
        async with ScriptedServer(calculate) as server, trainer_for(server) as trainer:
            outcomes, stop_reason = await run_all(trainer, 5)
        assert stop_reason is None
        assert sorted(outcomes) == ["r0", "r1", "r2", "r3", "r4"]
        for outcome in outcomes.values():
            assert (outcome.outcome, outcome.problem) == (Ending.COMPLETED, None)
            assert (outcome.reward, outcome.finish_reason) == (1.0, "stop")
            assert (outcome.turns, outcome.tool_calls, outcome.rewrote_messages) == (2, 1, False)
            assert outcome.latency_seconds > 0

    async def test_the_init_carries_the_callback_address_a_key_and_the_server_key(self) -> None:
        async with ScriptedServer() as server, trainer_for(server) as trainer:
            await trainer.run_one(request(metadata={"ground_truth": "3"}, max_turns=4))
            assert server.keys == ["Bearer server-key"]
            (init,) = server.inits
            assert init["server_url"] == trainer.callback_url
            assert len(init["api_key"]) >= 40
            assert init["idempotency_key"] == "r0"
            assert (init["metadata"], init["max_turns"]) == ({"ground_truth": "3"}, 4)

    async def test_no_more_rollouts_are_in_flight_than_allowed(self) -> None:
        running: set[str] = set()
        most = 0

        async def agent(rollout: Rollout) -> None:
            nonlocal most
            running.add(rollout.id)
            most = max(most, len(running))
            await rollout.chat(QUESTION)
            running.remove(rollout.id)
            await succeed(rollout)

        async with ScriptedServer(agent) as server, trainer_for(server, concurrency=3) as trainer:
            outcomes, _ = await run_all(trainer, 20)
        assert len(outcomes) == 20
        assert most == 3

    async def test_an_id_is_used_once(self) -> None:
        async with ScriptedServer() as server, trainer_for(server) as trainer:
            await trainer.run_one(request())
            with pytest.raises(ValueError, match="'r0' was used before"):
                await trainer.run_one(request())

    async def test_what_the_source_of_requests_raises_comes_out_as_it_is(self) -> None:
        def broken() -> Iterator[RolloutRequest]:
            yield request()
            raise LookupError("row 1")

        async with ScriptedServer() as server, trainer_for(server) as trainer:
            with pytest.raises(LookupError, match="row 1"):
                await trainer.run(broken(), lambda outcome: None)

    async def test_it_is_used_within_its_block_and_entered_once(self) -> None:
        trainer = Trainer(arithmetic, server_url="http://127.0.0.1:1")
        for use in (trainer.run_one(request()), trainer.cancel(everything=True)):
            with pytest.raises(RuntimeError, match="used within its 'async with'"):
                await use
        async with trainer:
            pass
        with pytest.raises(RuntimeError, match="The trainer was left"):
            await trainer.run_one(request())
        with pytest.raises(RuntimeError, match="entered once"):
            await trainer.__aenter__()
        with pytest.raises(ValueError, match="concurrency must be 1 or more, got 0"):
            Trainer(arithmetic, server_url="http://127.0.0.1:1", limits=TrainerLimits(concurrency=0))

    async def test_an_address_in_use_is_reported_in_one_sentence(self) -> None:
        with bind_socket("127.0.0.1", 0) as taken:
            trainer = Trainer(arithmetic, server_url="http://127.0.0.1:1", port=taken.getsockname()[1])
            with pytest.raises(TrainerError, match=r"Cannot listen on 127\.0\.0\.1 port \d+: Address already in use"):
                await trainer.__aenter__()


class TestDispatch:
    async def test_a_refusal_for_now_is_repeated_with_the_same_body(self) -> None:
        refusals = [
            Response(status_code=429, headers={"Retry-After": "0"}),
            Response(status_code=429, headers={"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
            Response(status_code=503, headers={"Retry-After": "soon"}),
            Response(status_code=503),
            Response(status_code=500),
            Response(status_code=408),
        ]
        async with ScriptedServer(answers=[*refusals]) as server, trainer_for(server) as trainer:
            outcome = await trainer.run_one(request())
        assert outcome.outcome is Ending.COMPLETED
        assert len(server.bodies) == len(refusals) + 1
        assert len(set(server.bodies)) == 1

    async def test_an_asked_for_delay_is_kept_to(self, monkeypatch: pytest.MonkeyPatch) -> None:
        delays: list[float] = []
        sleep = asyncio.sleep

        async def record(delay_seconds: float) -> None:
            delays.append(delay_seconds)
            await sleep(0)

        answers: list[Response | int] = [Response(status_code=429, headers={"Retry-After": "7"})]
        async with ScriptedServer(answers=answers) as server, trainer_for(server) as trainer:
            monkeypatch.setattr("osmosis_ai.rollout.trainer.dispatch.asyncio.sleep", record)
            await trainer.run_one(request())
            monkeypatch.undo()
        assert [delay for delay in delays if delay >= 7] != []

    async def test_a_server_that_keeps_failing_is_given_up_on_for_this_rollout_only(self) -> None:
        async with ScriptedServer(answers=[500] * 4) as server, trainer_for(server, concurrency=1) as trainer:
            outcomes, stop_reason = await run_all(trainer, 2)
        assert outcomes["r0"].outcome is Ending.REFUSED
        assert outcomes["r0"].problem == "The rollout server refused the rollout (500): no"
        assert outcomes["r1"].outcome is Ending.COMPLETED
        assert stop_reason is None

    @pytest.mark.parametrize(
        ("answer", "problem"),
        [
            (JSONResponse({"detail": "max_turns"}, 422), 'refused the rollout (422): {"detail":"max_turns"}'),
            (Response("\x1b[2Jboo\n" + "x" * 10_000, 400), "refused the rollout (400): boo xxx"),
            (Response(status_code=307), "refused the rollout (307): no reason given."),
            (Response("fine", 202), "answered 202, but the body has no list of tools."),
            (JSONResponse({"tools": ["add"]}, 202), "answered 202, but the body has no list of tools."),
        ],
    )
    async def test_a_final_refusal_is_told_in_one_line(self, answer: Response, problem: str) -> None:
        async with ScriptedServer(answers=[answer]) as server, trainer_for(server) as trainer:
            outcome = await trainer.run_one(request())
        assert outcome.outcome is Ending.REFUSED
        assert problem in str(outcome.problem)
        assert str(outcome.problem).isprintable()
        assert len(str(outcome.problem)) < 500
        assert len(server.bodies) == 1

    async def test_a_refused_key_stops_the_run(self) -> None:
        async with ScriptedServer(answers=[401] * 100) as server, trainer_for(server, concurrency=2) as trainer:
            outcomes, stop_reason = await run_all(trainer, 50)
        assert stop_reason == "The rollout server refused the key (401): give its key with --server-key."
        assert {outcome.outcome for outcome in outcomes.values()} == {Ending.REFUSED}
        assert len(outcomes) <= 2

    async def test_a_server_that_cannot_be_reached_stops_the_run(self) -> None:
        with bind_socket("127.0.0.1", 0) as closed:
            url = url_of("127.0.0.1", closed.getsockname()[1])
        async with Trainer(arithmetic, server_url=url, retry=QUICK_RETRY) as trainer:
            with pytest.raises(TrainerError, match=f"No rollout server answers at {url}"):
                await trainer.check_server()
            outcomes, stop_reason = await run_all(trainer, 50)
        assert "cannot be reached" in str(stop_reason)
        assert len(outcomes) <= 16

    async def test_an_init_without_a_reply_is_sent_again_with_the_same_body(self) -> None:
        repeated = asyncio.Event()

        class SilentAtFirst(ScriptedServer):
            async def _init(self, request: Any) -> Response:
                if not self.bodies:
                    self.bodies.append(await request.body())
                    await repeated.wait()
                    return Response(status_code=500)
                repeated.set()
                return await super()._init(request)

        retry = RetryPolicy(attempt_timeout_seconds=0.1, base_delay_seconds=0.001)
        async with SilentAtFirst() as server, Trainer(arithmetic, server_url=server.url, retry=retry) as trainer:
            outcome = await trainer.run_one(request())
        assert outcome.outcome is Ending.COMPLETED
        assert server.bodies[0] == server.bodies[1]


class TestEndings:
    async def test_a_reported_error_is_an_outcome_and_never_a_reward(self) -> None:
        async def agent(rollout: Rollout) -> None:
            await rollout.complete("ERROR", error_message="ZeroDivisionError: /", reward=0.0, finish_reason="error")

        async with ScriptedServer(agent) as server, trainer_for(server) as trainer:
            outcome = await trainer.run_one(request())
        assert (outcome.outcome, outcome.problem) == (Ending.ERROR, "ZeroDivisionError: /")
        assert (outcome.reward, outcome.finish_reason) == (None, "error")

    async def test_a_missing_callback_is_a_timeout_and_a_late_one_changes_nothing(self) -> None:
        timed_out = asyncio.Event()

        async def agent(rollout: Rollout) -> None:
            await timed_out.wait()
            assert (await rollout.chat(QUESTION)).status_code == 410
            late = await rollout.complete(reward=1.0)
            assert (late.status_code, late.json()["delivery"]) == (200, "late")
            assert (await rollout.complete(reward=1.0)).json()["delivery"] == "repeated"

        async with (
            ScriptedServer(agent) as server,
            trainer_for(server, rollout_timeout_seconds=0.5) as trainer,
        ):
            server.reports_cancelled = False
            outcome = await trainer.run_one(request())
            timed_out.set()
            await server.agents()
            assert trainer.late_results == 1
        assert outcome.outcome is Ending.TIMED_OUT
        assert outcome.problem == "No result within 0.5 s; still waiting for its terminal callback."
        assert outcome.reward is None

    async def test_a_rollout_that_is_never_accepted_says_so_when_it_times_out(self) -> None:
        async with (
            ScriptedServer(answers=[Response(status_code=429, headers={"Retry-After": "30"})]) as server,
            trainer_for(server, rollout_timeout_seconds=0.2) as trainer,
        ):
            outcome = await trainer.run_one(request())
        assert outcome.outcome is Ending.TIMED_OUT
        assert "waiting for the server to accept it (it answered 429)" in str(outcome.problem)

    async def test_a_repeated_result_counts_once_and_another_one_is_refused(self) -> None:
        async def agent(rollout: Rollout) -> None:
            replies = [await rollout.complete(reward=1.0, finish_reason="stop") for _ in range(3)]
            assert [reply.status_code for reply in replies] == [200, 200, 200]
            contradiction = await rollout.complete("ERROR", error_message="no")
            assert contradiction.status_code == 409
            assert contradiction.json()["code"] == "contradicting_result"

        async with ScriptedServer(agent) as server, trainer_for(server) as trainer:
            outcomes, _ = await run_all(trainer, 1)
            await server.agents()
            assert trainer.contradictions == 1
        assert outcomes["r0"].reward == 1.0

    async def test_the_same_result_in_another_order_is_a_repeat(self) -> None:
        async def agent(rollout: Rollout) -> None:
            await rollout.complete(reward=1.0)
            reply = await rollout.post(COMPLETED_PATH, {"reward": 1.0, "status": "COMPLETED", "rollout_id": rollout.id})
            assert reply.json()["delivery"] == "repeated"

        async with ScriptedServer(agent) as server, trainer_for(server) as trainer:
            await trainer.run_one(request())
            await server.agents()

    async def test_a_result_may_come_before_the_reply_of_the_init(self) -> None:
        class DoneBeforeItSaysSo(ScriptedServer):
            async def _init(self, request: Any) -> Response:
                reply = await super()._init(request)
                await self.agents()
                return reply

        async with DoneBeforeItSaysSo() as server, trainer_for(server) as trainer:
            assert (await trainer.run_one(request())).reward == 1.0

    async def test_a_cancelled_run_lets_go_of_its_rollouts(self) -> None:
        started = asyncio.Event()
        cancelled = asyncio.Event()

        async def agent(rollout: Rollout) -> None:
            started.set()
            await cancelled.wait()
            assert (await rollout.chat(QUESTION)).status_code == 410

        async with ScriptedServer(agent) as server, trainer_for(server) as trainer:
            run = asyncio.ensure_future(run_all(trainer, 1))
            await started.wait()
            run.cancel()
            await asyncio.wait([run])
            assert run.cancelled()
            cancelled.set()
            await server.agents()


async def test_no_repr_shows_the_callback_key() -> None:
    async with ScriptedServer() as server, trainer_for(server) as trainer:
        outcome = await trainer.run_one(request())
        (init,) = server.inits
        assert init["api_key"] not in repr(outcome) + repr(trainer)
