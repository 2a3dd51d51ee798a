"""The judge: asked over a real socket, tried again, bounded in time, calls and bytes; only a whole answer is one."""

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_trainer import FakeTrainer
from support.model_endpoint import HANG, HANG_UP, Answer, ModelEndpoint, reply
from support.rollouts import INIT, JsonObject, ScriptedAgent, client_of, init_body

from osmosis_ai.rollout import RolloutSettings, configure
from osmosis_ai.rollout.core import judge as judge_module
from osmosis_ai.rollout.core.base import RolloutContext, RolloutResult
from osmosis_ai.rollout.core.exceptions import JudgeError
from osmosis_ai.rollout.core.judge import IMPATIENT, MAX_REPLY_BYTES, Judge
from osmosis_ai.rollout.core.settings import RolloutJudgeSettings
from osmosis_ai.rollout.server.app import create_app

KEY = "judge-key-0123456789"
GOOD = reply({"role": "assistant", "content": "0.5"})


@pytest.fixture
def endpoint() -> Iterator[ModelEndpoint]:
    with ModelEndpoint(otherwise=lambda body: GOOD) as endpoint:
        yield endpoint


def settings_of(endpoint: ModelEndpoint, **changes: Any) -> RolloutJudgeSettings:
    fields = {"base_url": endpoint.url, "model": "grader", "api_key": KEY, "timeout_seconds": 20, **changes}
    return RolloutJudgeSettings(**fields)


async def test_what_it_answers_is_a_text_and_what_it_is_asked_is_openai_s(endpoint: ModelEndpoint) -> None:
    assert await Judge(settings_of(endpoint)).ask("How good?", max_tokens=5) == "0.5"
    [call] = endpoint.calls
    assert call.path.endswith("/v1/chat/completions")
    assert {name.lower(): value for name, value in call.headers.items()}["authorization"] == f"Bearer {KEY}"
    asked = {"role": "user", "content": "How good?"}
    assert call.body == {"temperature": 0, "max_tokens": 5, "messages": [asked], "model": "grader", "stream": False}


@pytest.mark.slow
async def test_what_passes_is_tried_again(endpoint: ModelEndpoint) -> None:
    endpoint.answers = [HANG_UP, Answer(b"{}", 503), Answer(b"", 429, {"Retry-After": "0"})]
    assert await Judge(settings_of(endpoint)).ask([{"role": "user", "content": "?"}]) == "0.5"
    assert len(endpoint.calls) == 4


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Answer(json.dumps({"error": {"message": f"Incorrect key: {KEY}"}}).encode(), 401), r"401, .*Incorrect key"),
        (Answer(b"", 302, {"Location": "http://elsewhere"}), "refuses the call: 302"),
        (Answer(b"<html>"), "no chat completion: <html>"),
        (Answer(b"[" * 100_000), "no chat completion"),
        (Answer(b'{"choices": []}'), "no chat completion"),
        (reply({"role": "assistant", "content": None}), "without a text"),
        (reply({"role": "assistant", "content": "0."}, "length"), "finish_reason is 'length': raise max_tokens"),
        (reply({"role": "assistant", "content": "0."}, None), "finish_reason is None"),
        (reply({"role": "assistant", "content": "x" * MAX_REPLY_BYTES}), "more than 1,048,576 bytes"),
    ],
)
async def test_what_is_no_whole_answer_is_one_sentence_without_the_key(
    endpoint: ModelEndpoint, answer: Answer, sentence: str
) -> None:
    endpoint.otherwise = lambda body: answer
    with pytest.raises(JudgeError, match=sentence) as told:
        await Judge(settings_of(endpoint)).ask("?")
    assert KEY not in str(told.value)
    assert len(endpoint.calls) == 1


@pytest.mark.parametrize("answer", [HANG, Answer(b"{}", 500), reply({"role": "assistant", "content": "x"}, "abort")])
async def test_it_has_its_own_deadline(endpoint: ModelEndpoint, answer: Answer) -> None:
    endpoint.otherwise = lambda body: answer
    with pytest.raises(JudgeError, match=r"gave no answer within 0\.5 s \(JUDGE_TIMEOUT_SECONDS, [12] attempts?\)"):
        await Judge(settings_of(endpoint, timeout_seconds=0.5)).ask("?")


async def test_it_has_a_budget_of_calls(endpoint: ModelEndpoint) -> None:
    judge = Judge(settings_of(endpoint, max_calls=2))
    assert [await judge.ask("?") for _ in range(2)] == ["0.5", "0.5"]
    with pytest.raises(JudgeError, match="budget of 2 judge calls"):
        await judge.ask("?")
    assert len(endpoint.calls) == 2


async def test_the_key_for_openai_goes_to_openai_alone(
    endpoint: ModelEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    await Judge(settings_of(endpoint, api_key=" ")).ask("?")
    assert "authorization" not in {name.lower() for name in endpoint.calls[0].headers}


async def test_without_a_model_or_with_odd_messages_nobody_is_asked(endpoint: ModelEndpoint) -> None:
    with pytest.raises(JudgeError, match="set OSMOSIS_ROLLOUT_JUDGE_MODEL"):
        await Judge(RolloutJudgeSettings()).ask("?")
    with pytest.raises(JudgeError, match="no JSON"):
        await Judge(settings_of(endpoint)).ask("?", seed=object())
    assert not endpoint.calls


class TestInARollout:
    @staticmethod
    async def result_of(trainer: FakeTrainer, run: Any, folder: Path) -> JsonObject:
        async with client_of(create_app(ScriptedAgent(run), debug_dir=str(folder))) as client:
            assert (await client.post(INIT, json=init_body(server_url=trainer.url))).status_code == 202
            return await trainer.result("rollout-1")

    async def test_a_grade_is_the_reward_and_in_the_trace_without_the_key(
        self, trainer: FakeTrainer, endpoint: ModelEndpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        configure(RolloutSettings(judge=settings_of(endpoint)))
        caplog.set_level(logging.DEBUG)

        async def run(ctx: RolloutContext) -> RolloutResult:
            return ctx.complete([], reward=float(await ctx.judge("How good?")))

        assert (await self.result_of(trainer, run, tmp_path))["reward"] == 0.5
        trace = (tmp_path / "rollout-1.jsonl").read_text()
        [event] = [event for event in map(json.loads, trace.splitlines()) if event["event"] == "judge"]
        assert (event["model"], event["reply"], event["attempts"]) == ("grader", "0.5", 1)
        assert KEY not in trace + caplog.text

    @pytest.mark.parametrize("caught", [False, True])
    async def test_one_that_is_down_is_a_reward_error_and_no_reward(
        self, trainer: FakeTrainer, endpoint: ModelEndpoint, tmp_path: Path, caught: bool
    ) -> None:
        configure(RolloutSettings(judge=settings_of(endpoint, base_url="http://127.0.0.1:9/v1", timeout_seconds=0.2)))

        async def run(ctx: RolloutContext) -> RolloutResult:
            try:
                return ctx.complete([], reward=float(await ctx.judge("How good?")))
            except JudgeError as error:
                if caught:
                    return ctx.error(str(error))
                raise

        result = await self.result_of(trainer, run, tmp_path)
        assert (result["status"], result["extra_fields"]["outcome"]) == ("ERROR", "reward_error")
        assert "The judge at http://127.0.0.1:9/v1 gave no answer within 0.2 s" in result["error_message"]
        assert "reward" not in result


class TestOneThatCannotBeReached:
    @pytest.fixture(autouse=True)
    def _nothing_is_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(judge_module, "_told_at", {})
        monkeypatch.setattr(judge_module, "_given_up", set())
        monkeypatch.setattr(judge_module, "UNREACHABLE_SECONDS", 0.2)

    @staticmethod
    def settings(**changes: Any) -> RolloutJudgeSettings:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        return RolloutJudgeSettings(**{"base_url": url, "model": "grader", "api_key": KEY, **changes})

    @pytest.mark.slow
    async def test_is_waited_for_until_the_deadline_and_that_is_told_at_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings = self.settings(timeout_seconds=1.0)
        for _ in range(2):
            with pytest.raises(JudgeError, match=r"gave no answer within 1 s .*: ConnectError"):
                await Judge(settings).ask("?")
        [line] = caplog.messages
        assert line.startswith(f"The judge at {settings.base_url} does not answer, and is asked again for 1 s: Connect")

    async def test_is_given_up_sooner_where_somebody_waits_at_a_terminal(self) -> None:
        settings = self.settings()
        token = IMPATIENT.set(True)
        try:
            for attempts in (2, 1):
                with pytest.raises(
                    JudgeError, match=rf"cannot be reached \(0\.\d s, attempts: {attempts}\): ConnectError"
                ):
                    await Judge(settings).ask("?")
        finally:
            IMPATIENT.reset(token)

    async def test_that_comes_back_is_asked_as_before(self, endpoint: ModelEndpoint) -> None:
        settings = settings_of(endpoint)
        judge_module._given_up.add(f"The judge at {settings.base_url}")
        endpoint.answers = [Answer(b"{}", 503)]
        token = IMPATIENT.set(True)
        try:
            assert await Judge(settings).ask("?") == "0.5"
        finally:
            IMPATIENT.reset(token)
        assert not judge_module._given_up
