"""Only a whole reply reaches the agent: the table of finish reasons, and the three meanings of a 404, row by row."""

from typing import Any

import pytest
from support.http_peer import HttpPeer, refuse, reply
from support.rollout_client import QUESTION, ROLLOUT_ID

from osmosis_ai.rollout import OsmosisLLMClient, OsmosisValidationError, RolloutClientSettings
from osmosis_ai.rollout.core.exceptions import OsmosisNotFoundError, OsmosisReplyError, OsmosisTrainerAbsentError
from osmosis_ai.rollout.core.watch import PauseCause
from osmosis_ai.rollout.wire.finish_reasons import WHOLE

pytestmark = pytest.mark.usefixtures("default_settings")

WORDS = {"detail": "no such rollout", "code": "unknown_rollout"}
PAGE = "<html><body><h1>404 Not Found</h1><hr>nginx</body></html>"


def ending_with(**choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": "About 8"}, **choice}]}


class Noted(OsmosisLLMClient):
    """A client that keeps what its watcher is told."""

    def __init__(self, *arguments: Any, **fields: Any) -> None:
        super().__init__(*arguments, **fields)
        self.told: list[tuple[Any, ...]] = []
        self.watcher = self  # type: ignore[assignment]  # the methods that it is asked for

    def in_doubt(self) -> None:
        return None

    def pause_begins(self, cause: str, problem: str, seconds: float) -> str:
        self.told.append((cause, problem))
        return cause

    def pause_ends(self, pause: str, seconds: float, since: float, answered: bool) -> None:
        assert seconds >= 0
        assert since >= 0
        self.told.append((pause, answered))


class TestFinishReasons:
    @pytest.mark.parametrize("finish_reason", sorted(WHOLE))
    async def test_a_whole_reply_is_taken(self, client: OsmosisLLMClient, peer: HttpPeer, finish_reason: str) -> None:
        peer.answer = reply(ending_with(finish_reason=finish_reason))
        assert (await client.chat_completions(QUESTION)).finish_reason == finish_reason
        assert len(peer.requests) == 1

    async def test_a_trainer_that_speaks_of_none_vouches_for_its_message(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        peer.answer = reply(ending_with())
        assert (await client.chat_completions(QUESTION)).finish_reason == "stop"

    @pytest.mark.parametrize("content", [18, [], {}, [{"type": "image_url"}]], ids=str)
    async def test_a_message_without_any_text_is_no_empty_answer(
        self, client: OsmosisLLMClient, peer: HttpPeer, content: Any
    ) -> None:
        message = {"role": "assistant", "content": content}
        peer.answer = reply(ending_with(finish_reason="stop", message=message))
        with pytest.raises(OsmosisReplyError, match="whose content is neither text nor null"):
            await client.chat_completions(QUESTION)
        assert len(peer.requests) == 1
        call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
        peer.answer = reply(ending_with(finish_reason="stop", message=message | {"tool_calls": [call]}))
        assert (await client.chat_completions(QUESTION)).tool_calls == [call]

    @pytest.mark.parametrize("content", [[{"type": "output_text", "text": "8"}], ["8"], {"text": {"value": "8"}}])
    async def test_text_in_parts_of_any_form_is_read(
        self, client: OsmosisLLMClient, peer: HttpPeer, content: Any
    ) -> None:
        message = {"role": "assistant", "content": content}
        peer.answer = reply(ending_with(finish_reason="stop", message=message))
        replied = await client.chat_completions(QUESTION)
        assert (replied.content, replied.message) == ("8", message)

    async def test_an_abort_is_asked_again_as_another_call_for_as_long_as_it_may_take(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        peer.answers = [reply(ending_with(finish_reason="abort"))] * 20
        assert (await client.chat_completions(QUESTION)).content == "About 85 grams."
        assert peer.bodies == [peer.bodies[0]] * 21
        assert len(set(peer.sent("Idempotency-Key"))) == 21, "the old key would bring the aborted reply again"
        assert client.get_metrics().num_llm_calls == 1

    async def test_what_was_refused_is_asked_again_under_the_key_of_its_own_call(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        aborted = reply(ending_with(finish_reason="abort"))
        peer.answers = [refuse(503), aborted, refuse(503), refuse(500)]
        await client.chat_completions(QUESTION)
        first, second, *others = peer.sent("Idempotency-Key")
        assert first == second
        assert {*others} == {others[0]}
        assert others[0] != first

    @pytest.mark.slow
    async def test_aborts_end_with_the_deadline_of_the_call(self, peer: HttpPeer) -> None:
        settings = RolloutClientSettings(call_deadline_seconds=1.0)
        settings.retry_base_delay = 0.01
        settings.retry_max_delay = 0.05
        peer.answer = reply(ending_with(finish_reason="abort"))
        with pytest.raises(OsmosisReplyError, match="is not whole: its finish_reason is 'abort'"):
            await OsmosisLLMClient(peer.url, ROLLOUT_ID, settings=settings).chat_completions(QUESTION)
        assert len(peer.requests) > 10

    @pytest.mark.parametrize("finish_reason", ["abort", "error"])
    async def test_when_to_ask_again_a_reply_may_say_too(
        self, client: OsmosisLLMClient, peer: HttpPeer, delays: list[float], finish_reason: str
    ) -> None:
        peer.answers = [reply(ending_with(finish_reason=finish_reason), headers={"Retry-After": "25"})]
        await client.chat_completions(QUESTION)
        assert delays == [25.0]

    @pytest.mark.usefixtures("delays")
    async def test_a_count_that_somebody_set_counts_for_aborts(self, peer: HttpPeer) -> None:
        peer.answer = reply(ending_with(finish_reason="abort"))
        with pytest.raises(OsmosisReplyError):
            await OsmosisLLMClient(peer.url, ROLLOUT_ID, max_retries=2).chat_completions(QUESTION)
        assert len(peer.requests) == 3

    @pytest.mark.parametrize(
        ("finish_reason", "named"),
        [("error", "'error'"), (None, "null"), ("paused", "'paused'"), ("", "''"), (7, "a int"), ({}, "a dict")],
    )
    async def test_what_may_mean_anything_is_asked_again_a_few_times(
        self, client: OsmosisLLMClient, peer: HttpPeer, finish_reason: Any, named: str
    ) -> None:
        peer.answer = reply(ending_with(finish_reason=finish_reason))
        with pytest.raises(OsmosisReplyError, match=f"is not whole: its finish_reason is {named}"):
            await client.chat_completions(QUESTION)
        assert len(peer.requests) == client.max_retries + 1
        assert len(set(peer.sent("Idempotency-Key"))) == len(peer.requests)
        peer.answers = [peer.answer]
        peer.answer = reply()
        assert (await client.chat_completions(QUESTION)).content == "About 85 grams."

    async def test_what_a_filter_cut_off_is_final(self, client: OsmosisLLMClient, peer: HttpPeer) -> None:
        peer.answer = reply(ending_with(finish_reason="content_filter"))
        with pytest.raises(OsmosisReplyError, match="'content_filter'"):
            await client.chat_completions(QUESTION)
        assert len(peer.requests) == 1

    async def test_an_endless_word_is_not_quoted_whole(self, client: OsmosisLLMClient, peer: HttpPeer) -> None:
        peer.answer = reply(ending_with(finish_reason="x" * 1_000_000))
        with pytest.raises(OsmosisReplyError) as caught:
            await client.chat_completions(QUESTION)
        assert len(str(caught.value)) < 2_000


class TestNotFound:
    @pytest.mark.parametrize(
        ("status", "text"),
        [
            (404, '{"detail": "no such rollout", "code": "unknown_rollout"}'),
            (404, '{"error": "unknown rollout r1"}'),
            (404, '{"detail": "Not Found", "code": "unknown_rollout"}'),
            (404, '{"error": "Not Found", "message": "Rollout r1 not found", "path": "/v1/rollout/completed"}'),
            (404, '{"detail": "Not Found", "rollout_id": "r1"}'),
            (410, '{"detail": "ended"}'),
            (410, ""),
            (410, PAGE),
        ],
    )
    async def test_the_trainers_own_word_is_final(
        self, client: OsmosisLLMClient, peer: HttpPeer, status: int, text: str
    ) -> None:
        peer.answer = refuse(status, text)
        with pytest.raises(OsmosisNotFoundError):
            await client.chat_completions(QUESTION)
        assert len(peer.requests) == 1

    @pytest.mark.parametrize(
        "text", [PAGE, "", "404 page not found", "[]", "{}", '"gone"', "x" * 1_000_000, "[" * 9999]
    )
    async def test_anybody_elses_is_a_pause(self, client: OsmosisLLMClient, peer: HttpPeer, text: str) -> None:
        peer.answers = [refuse(404, text)] * 20
        assert (await client.chat_completions(QUESTION)).content == "About 85 grams."
        assert len(peer.requests) == 21
        assert len(set(peer.sent("Idempotency-Key"))) == 1

    @pytest.mark.parametrize(
        ("status", "text"),
        [
            (404, '{"detail": "Not Found"}'),
            (404, '{"message":"not found."}'),
            (404, '{"message":"no Route matched with those values"}'),
            # What gateways and frameworks say besides: a request's id, a status, the path itself.
            (404, '{"message":"no Route matched with those values","request_id":"1f"}'),
            (404, '{"error_msg":"404 Route Not Found"}'),
            (404, '{"timestamp":"2026","status":404,"error":"Not Found","path":"/v1/rollout/completed"}'),
            (404, '{"error":{"message":"Not Found","type":"Not Found","param":null,"code":404}}'),
            (404, '{"message":"Cannot POST /v1/rollout/completed","error":"Not Found","statusCode":404}'),
            (404, '{"type":"about:blank","title":"Not Found","status":404}'),
            (404, '{"errors":[{"status":"404","title":"Not Found"}]}'),
            (405, '{"detail":"Method Not Allowed"}'),
        ],
    )
    async def test_a_path_that_nobody_serves_is_tried_a_few_times(
        self, client: OsmosisLLMClient, peer: HttpPeer, status: int, text: str
    ) -> None:
        peer.answer = refuse(status, text)
        with pytest.raises(OsmosisTrainerAbsentError, match="attempt 4 of 4") as caught:
            await client.chat_completions(QUESTION)
        assert isinstance(caught.value, OsmosisValidationError)  # as code written for 0.2 expects of a 4xx
        assert caught.value.status_code == status

    async def test_a_page_where_nobody_may_post_is_a_pause(self, client: OsmosisLLMClient, peer: HttpPeer) -> None:
        peer.answers = [refuse(405, PAGE)] * 20
        assert (await client.chat_completions(QUESTION)).content == "About 85 grams."


class TestPausesAreTold:
    @pytest.mark.parametrize(
        ("trouble", "cause"),
        [
            (refuse(503), PauseCause.REFUSED),
            (refuse(404, PAGE), PauseCause.REFUSED),
            (reply(ending_with(finish_reason="abort")), PauseCause.ABORTED),
        ],
        ids=["503", "404", "abort"],
    )
    @pytest.mark.usefixtures("delays")
    async def test_one_pause_however_many_attempts_it_takes(
        self, peer: HttpPeer, trouble: Any, cause: PauseCause
    ) -> None:
        client = Noted(peer.url, ROLLOUT_ID)
        peer.answers = [trouble] * 5
        await client.chat_completions(QUESTION)
        assert [told[0] for told in client.told] == [cause, cause]
        assert client.told[-1] == (cause, True)

    @pytest.mark.usefixtures("delays")
    async def test_nobody_there_until_the_call_gives_up(self) -> None:
        client = Noted("http://127.0.0.1:1", ROLLOUT_ID, max_retries=2)
        with pytest.raises(Exception, match="attempt 3 of 3"):
            await client.chat_completions(QUESTION)
        assert client.told[0][0] == PauseCause.UNREACHABLE
        assert client.told[-1] == (PauseCause.UNREACHABLE, False)

    @pytest.mark.usefixtures("delays")
    async def test_other_troubles_are_none_and_neither_is_a_result(self, peer: HttpPeer) -> None:
        client = Noted(peer.url, ROLLOUT_ID)
        peer.answers = [refuse(500), reply(ending_with(finish_reason=None))]
        await client.chat_completions(QUESTION)
        peer.answers = [refuse(503)]
        await client.complete_rollout("COMPLETED", QUESTION)
        assert client.told == []
