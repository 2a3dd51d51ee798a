"""The client to a trainer in trouble: which failures are final, how the others are retried, what is told of them."""

import asyncio
import logging
import socket
import traceback

import httpx
import pytest
from support.http_peer import Answer, HttpPeer, close_half_way, drop, hang, refuse, reply
from support.rollout_client import QUESTION, ROLLOUT_ID, SECRET

from osmosis_ai.rollout import (
    OsmosisRolloutError,
    OsmosisServerError,
    OsmosisTimeoutError,
    OsmosisTransportError,
    OsmosisValidationError,
    RolloutClientSettings,
)
from osmosis_ai.rollout.core.exceptions import (
    OsmosisAuthenticationError,
    OsmosisNotFoundError,
    OsmosisPayloadTooLargeError,
    OsmosisRateLimitError,
    OsmosisReplyError,
)
from osmosis_ai.rollout.wire.client import OsmosisLLMClient

pytestmark = pytest.mark.usefixtures("default_settings")


async def start_at(peer: HttpPeer, port: int) -> None:
    """Start ``peer`` at a port that was free a moment ago."""
    peer._server = await asyncio.start_server(peer._serve, "127.0.0.1", port)


def unused_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "error_class"),
        [
            (400, OsmosisValidationError),
            (401, OsmosisAuthenticationError),
            (403, OsmosisAuthenticationError),
            (404, OsmosisNotFoundError),
            (410, OsmosisNotFoundError),
            (413, OsmosisPayloadTooLargeError),
            (422, OsmosisValidationError),
        ],
    )
    async def test_a_4xx_is_final(
        self, client: OsmosisLLMClient, peer: HttpPeer, status: int, error_class: type[OsmosisValidationError]
    ) -> None:
        peer.answer = refuse(status, '{"detail": "that will not do"}')
        with pytest.raises(OsmosisValidationError, match="that will not do") as caught:
            await client.chat_completions(QUESTION)
        assert type(caught.value) is error_class
        assert caught.value.status_code == status
        assert len(peer.requests) == 1

    @pytest.mark.parametrize(
        ("status", "error_class"),
        [
            (408, OsmosisRateLimitError),
            (425, OsmosisRateLimitError),
            (429, OsmosisRateLimitError),
            (500, OsmosisServerError),
            (503, OsmosisServerError),
            (599, OsmosisServerError),
        ],
    )
    @pytest.mark.usefixtures("delays")
    async def test_a_passing_trouble_is_retried_until_the_attempts_run_out(
        self, peer: HttpPeer, status: int, error_class: type[OsmosisRolloutError]
    ) -> None:
        client = OsmosisLLMClient(peer.url, ROLLOUT_ID, max_retries=3)
        peer.answer = refuse(status, "busy")
        with pytest.raises(error_class, match=f"busy .*HTTP {status}.*attempt 4 of 4"):
            await client.chat_completions(QUESTION)
        assert len(peer.requests) == client.max_retries + 1 == 4

    @pytest.mark.parametrize(
        "trouble", [refuse(500), refuse(429), drop, close_half_way], ids=["500", "429", "dropped", "cut off"]
    )
    async def test_a_call_that_succeeds_later_succeeds(
        self, client: OsmosisLLMClient, peer: HttpPeer, trouble: Answer
    ) -> None:
        peer.answers = [trouble, trouble]
        result = await client.chat_completions(QUESTION)
        assert result.content == "About 85 grams."
        assert client.get_metrics().num_llm_calls == 1

    @pytest.mark.parametrize("status", [201, 204, 302, 304])
    async def test_any_other_status_is_named_and_final(
        self, client: OsmosisLLMClient, peer: HttpPeer, status: int
    ) -> None:
        peer.answer = reply(b"", status, {"Location": "/v1/rollout/completed", "Content-Length": "0"})
        with pytest.raises(OsmosisValidationError, match=f"Unexpected status code {status}") as caught:
            await client.chat_completions(QUESTION)
        assert caught.value.status_code == status
        assert len(peer.requests) == 1

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_told_with_its_location_and_the_usual_cause(
        self, client: OsmosisLLMClient, peer: HttpPeer, status: int
    ) -> None:
        peer.answer = reply(b"", status, {"Location": f"https://trainer.example/v1?key={SECRET}"})
        with pytest.raises(OsmosisValidationError) as caught:
            await client.chat_completions(QUESTION)
        message = str(caught.value)
        assert message.startswith(f"Unexpected status code {status}: it redirects to https://trainer.example/v1")
        assert "http where the trainer's ingress wants https" in message
        assert SECRET not in message
        assert len(peer.requests) == 1

    @pytest.mark.parametrize("trouble", [drop, close_half_way], ids=["dropped", "cut off"])
    async def test_a_broken_connection_is_a_transport_error_with_its_cause(
        self, client: OsmosisLLMClient, peer: HttpPeer, trouble: Answer
    ) -> None:
        peer.answer = trouble
        with pytest.raises(OsmosisTransportError, match=r"RemoteProtocolError: .*attempt 4 of 4") as caught:
            await client.chat_completions(QUESTION)
        assert isinstance(caught.value.__cause__, httpx.RemoteProtocolError)

    @pytest.mark.usefixtures("delays")
    async def test_a_trainer_that_is_not_there_is_a_transport_error(self) -> None:
        url = unused_url()
        with pytest.raises(OsmosisTransportError, match=rf"ConnectError: .*POST {url}/v1/chat/completions"):
            await OsmosisLLMClient(url, ROLLOUT_ID, max_retries=3).chat_completions(QUESTION)

    async def test_a_trainer_that_says_nothing_is_a_timeout(self, peer: HttpPeer, delays: list[float]) -> None:
        peer.answer = hang
        client = OsmosisLLMClient(peer.url, ROLLOUT_ID, timeout_seconds=0.05, max_retries=1)
        with pytest.raises(OsmosisTimeoutError, match=rf"ReadTimeout \(POST {peer.url}.*attempt 2 of 2") as caught:
            await client.chat_completions(QUESTION)
        assert isinstance(caught.value.__cause__, httpx.ReadTimeout)
        assert len(peer.requests) == 2

    @pytest.mark.usefixtures("delays")
    async def test_the_last_of_several_troubles_is_told(self, peer: HttpPeer) -> None:
        client = OsmosisLLMClient(peer.url, ROLLOUT_ID, max_retries=3)
        peer.answers = [drop, refuse(500, "one"), refuse(429, "two"), refuse(502, "three")]
        with pytest.raises(OsmosisServerError, match="three"):
            await client.chat_completions(QUESTION)

    async def test_the_trainers_text_is_cut_short_and_stripped_of_secrets(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        peer.answer = refuse(400, f"{SECRET} Bearer other-token, " * 10_000)
        with pytest.raises(OsmosisValidationError) as caught:
            await client.chat_completions(QUESTION)
        message = str(caught.value)
        assert len(message) < 800
        assert SECRET not in message
        assert "other-token" not in message

    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1:99999",
            "http://127.0.0.1:port",
            "http://127.0.0.1\n",
            "http://xn--",
            "ftp://127.0.0.1",
            "",
            "http://[::1",
        ],
    )
    async def test_a_url_that_cannot_be_called_is_a_transport_error_at_once(
        self, delays: list[float], url: str
    ) -> None:
        with pytest.raises(OsmosisTransportError):
            await OsmosisLLMClient(url, ROLLOUT_ID).chat_completions(QUESTION)
        assert delays == []

    @pytest.mark.parametrize("key", ["clé", "two\nlines", "trailing ", "\x00"])
    async def test_a_key_that_is_no_header_is_a_transport_error_that_keeps_it_secret(
        self, peer: HttpPeer, caplog: pytest.LogCaptureFixture, key: str
    ) -> None:
        caplog.set_level(logging.DEBUG)
        client = OsmosisLLMClient(peer.url, ROLLOUT_ID, api_key=f"s3cret{key}")
        with pytest.raises(OsmosisTransportError, match="api_key") as caught:
            await client.chat_completions(QUESTION)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value)) + caplog.text
        assert peer.requests == []

    async def test_no_failure_writes_the_key_anywhere(
        self, client: OsmosisLLMClient, peer: HttpPeer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        peer.answers = [drop, refuse(500, SECRET), close_half_way, reply(f"no JSON, {SECRET}".encode())]
        with pytest.raises(OsmosisReplyError) as caught:
            await client.chat_completions(QUESTION)
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        ours = [record.getMessage() for record in caplog.records if record.name.startswith("osmosis_ai")]
        assert SECRET not in "".join(ours)

    async def test_with_a_negative_retry_count_no_attempt_is_made(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        client.max_retries = -1
        with pytest.raises(OsmosisTransportError, match="No attempts made"):
            await client.chat_completions(QUESTION)
        assert peer.requests == []


class TestPauses:
    """A trainer that updates its weights says that it is busy, or nobody is there, for longer than a few attempts."""

    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    async def test_a_pause_is_waited_for_as_long_as_the_call_may_take(
        self, client: OsmosisLLMClient, peer: HttpPeer, status: int
    ) -> None:
        peer.answers = [refuse(status)] * 40
        assert (await client.chat_completions(QUESTION)).content == "About 85 grams."
        assert len(peer.requests) == 41
        assert len(set(peer.sent("Idempotency-Key"))) == 1

    @pytest.mark.slow
    async def test_so_is_a_trainer_that_is_not_there(self, way: None) -> None:
        settings = RolloutClientSettings(retry_base_delay=0.1, retry_max_delay=1)
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))  # taken, but nobody listens: connections are refused
            port = place.getsockname()[1]
            url = f"http://127.0.0.1:{port}"
            call = asyncio.ensure_future(
                OsmosisLLMClient(url, ROLLOUT_ID, settings=settings).chat_completions(QUESTION)
            )
            await asyncio.sleep(3.5)  # four attempts take 0.7 s
            assert not call.done()
        peer = HttpPeer()
        await start_at(peer, port)
        try:
            assert (await call).content == "About 85 grams."
        finally:
            await peer.__aexit__(None, None, None)

    @pytest.mark.slow
    async def test_the_deadline_of_the_call_ends_it(self, peer: HttpPeer) -> None:
        settings = RolloutClientSettings(call_deadline_seconds=1.5, retry_base_delay=0.1, retry_max_delay=1)
        settings.retry_max_delay = 0.1
        peer.answer = refuse(503, "weights")
        with pytest.raises(OsmosisServerError, match=r"weights \(HTTP 503, POST .*, attempt \d+, 1\.\d s\)"):
            await OsmosisLLMClient(peer.url, ROLLOUT_ID, settings=settings).chat_completions(QUESTION)
        assert len(peer.requests) > 10

    @pytest.mark.parametrize("by", ["argument", "setting"])
    async def test_a_count_that_somebody_set_counts(self, peer: HttpPeer, delays: list[float], by: str) -> None:
        peer.answer = refuse(503)
        settings = RolloutClientSettings(max_retries=2) if by == "setting" else RolloutClientSettings()
        client = OsmosisLLMClient(peer.url, ROLLOUT_ID, max_retries=2 if by == "argument" else None, settings=settings)
        with pytest.raises(OsmosisServerError, match="attempt 3 of 3"):
            await client.chat_completions(QUESTION)
        assert len(peer.requests) == 3

    async def test_other_troubles_count_also_among_pauses(self, client: OsmosisLLMClient, peer: HttpPeer) -> None:
        peer.answers = [refuse(500), *[refuse(503)] * 9] * 4
        with pytest.raises(OsmosisServerError, match="HTTP 500"):
            await client.chat_completions(QUESTION)
        assert len(peer.requests) == 31

    @pytest.mark.usefixtures("delays")
    async def test_a_name_that_nobody_has_is_no_pause(self) -> None:
        with pytest.raises(OsmosisTransportError, match="attempt 4 of 4"):
            await OsmosisLLMClient("http://trainer.invalid", ROLLOUT_ID).chat_completions(QUESTION)

    async def test_a_retry_after_is_obeyed_within_the_time_of_the_call(
        self, client: OsmosisLLMClient, peer: HttpPeer, delays: list[float]
    ) -> None:
        peer.answers = [refuse(503, headers={"Retry-After": "600"})]
        await client.chat_completions(QUESTION)
        assert delays == [600]


class TestIdempotency:
    async def test_retries_of_one_call_carry_one_id_and_other_calls_another(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        peer.answers = [refuse(500), drop]
        await client.chat_completions(QUESTION)
        await client.chat_completions(QUESTION)
        first, second, third, other = peer.sent("Idempotency-Key")
        assert first == second == third
        assert first
        assert other not in (None, first)

    async def test_calls_at_the_same_time_keep_their_ids_apart(self, client: OsmosisLLMClient, peer: HttpPeer) -> None:
        peer.answers = [refuse(500)] * 4
        await asyncio.gather(*(client.chat_completions([{"role": "user", "content": str(i)}]) for i in range(4)))
        ids_of_call: dict[str, set[str | None]] = {}
        for request in peer.requests:
            ids_of_call.setdefault(request.json["messages"][0]["content"], set()).add(
                request.headers["idempotency-key"]
            )
        assert all(len(ids) == 1 for ids in ids_of_call.values())
        assert len(set.union(*ids_of_call.values())) == 4

    async def test_a_result_carries_the_same_id_from_every_process(self, peer: HttpPeer) -> None:
        for _ in range(2):
            await OsmosisLLMClient(peer.url, ROLLOUT_ID).complete_rollout("COMPLETED", QUESTION)
        await OsmosisLLMClient(peer.url, "other").complete_rollout("COMPLETED", QUESTION)
        first, again, other = peer.sent("Idempotency-Key")
        assert first == again != other
