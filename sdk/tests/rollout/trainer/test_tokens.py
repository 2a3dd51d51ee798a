from typing import Any

import pytest

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.sampled import put_sampled, said_of, sampled_fields
from osmosis_ai.rollout.trainer import TokenRecorder, TokensError, TrainingRow, training_rows

ASK = {"role": "user", "content": "1 + 2?"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}
TOOL = {"role": "tool", "tool_call_id": "c", "content": "3"}
ANSWER = {"role": "assistant", "content": "#### 3"}


def result(message: dict[str, Any], prompt: list[int], ids: list[int], **fields: Any) -> CompletionsResult:
    logprobs = fields.pop("logprobs", [-0.5] * len(ids))
    return CompletionsResult(message, ids, logprobs, {}, "stop", prompt_token_ids=prompt, **fields)


class TestRows:
    def test_a_conversation_is_one_row_of_which_the_sampled_tokens_are_trained(self) -> None:
        recorder = TokenRecorder()
        recorder.note([ASK], result(CALL, [1, 2], [3, 4], weight_versions=[7], logprobs=[-0.1, -0.2]), at=5.0)
        recorder.note([ASK, CALL, TOOL], result(ANSWER, [1, 2, 3, 4, 5], [6], weight_versions=[7, 8]), at=6.0)
        assert [turn.goes_on_from for turn in recorder.turns] == [None, 1]
        assert training_rows(recorder.turns) == [
            TrainingRow(
                ids=(1, 2, 3, 4, 5, 6),
                mask=(0, 0, 1, 1, 0, 1),
                logprobs=(0.0, 0.0, -0.1, -0.2, 0.0, -0.5),
                prompt_length=2,
                turns=(1, 2),
                weight_versions=(7, 8),
            )
        ]

    def test_a_conversation_that_was_compacted_is_two(self) -> None:
        recorder = TokenRecorder()
        recorder.note([ASK], result(CALL, [1, 2], [3]))
        recorder.note([{"role": "user", "content": "in short"}], result(ANSWER, [9], [6]))
        first, second = training_rows(recorder.turns)
        assert (first.ids, second.ids) == ((1, 2, 3), (9, 6))
        assert (first.mask, second.mask) == ((0, 0, 1), (0, 1))

    def test_of_a_branch_the_tokens_in_common_are_trained_once(self) -> None:
        recorder = TokenRecorder()
        recorder.note([ASK], result(CALL, [1], [2]))
        recorder.note([ASK, CALL, TOOL], result(ANSWER, [1, 2, 3], [4]))
        recorder.note([ASK, CALL, {**TOOL, "content": "4"}], result(ANSWER, [1, 2, 8], [9]))
        first, second = training_rows(recorder.turns)
        assert (first.ids, first.mask, first.turns) == ((1, 2, 3, 4), (0, 1, 0, 1), (1, 2))
        assert (second.ids, second.mask, second.turns) == ((1, 2, 8, 9), (0, 0, 0, 1), (3,))

    def test_what_comes_back_without_its_nulls_is_the_same_conversation(self) -> None:
        recorder = TokenRecorder()
        recorder.note([ASK], result(CALL, [1], [2]))
        recorder.note([ASK, {**CALL, "content": None, "name": None}, TOOL], result(ANSWER, [1, 2, 3], [4]))
        assert recorder.turns[1].goes_on_from == 1

    REASONED = {**CALL, "reasoning_content": "hm"}  # noqa: RUF012 - read only

    @pytest.mark.parametrize(
        ("said", "back"),
        [
            (CALL, {**CALL, "content": ""}),
            (CALL, {**CALL, "tool_calls": [{"id": "c", "index": 0, "type": "function"}]}),
            (CALL, {**CALL, "annotations": []}),
            (REASONED, CALL),
        ],
    )
    def test_what_comes_back_in_another_spelling_is_the_same_conversation(
        self, said: dict[str, Any], back: dict[str, Any]
    ) -> None:
        recorder = TokenRecorder()
        recorder.note([ASK], result(said, [1], [2]))
        recorder.note([ASK, back, TOOL], result(ANSWER, [1, 2, 3], [4]))
        (row,) = training_rows(recorder.turns)
        assert row.mask == (0, 1, 0, 1)

    def test_so_one_that_was_tokenised_anew_is_refused(self) -> None:
        recorder = TokenRecorder()
        recorder.note([ASK], result(CALL, [1], [2]))
        recorder.note([ASK, {**CALL, "content": ""}, TOOL], result(ANSWER, [1, 9, 3], [4]))
        with pytest.raises(TokensError, match="Turn 2 goes on from turn 1"):
            training_rows(recorder.turns)

    def test_but_what_a_model_thought_may_be_left_out_and_its_tokens_then_are_too(self) -> None:
        recorder = TokenRecorder()
        recorder.note([ASK], result(self.REASONED, [1], [2, 3]))
        recorder.note([ASK, CALL, TOOL], result(ANSWER, [1, 3, 5], [4]))
        first, second = training_rows(recorder.turns)
        assert (first.ids, second.ids, second.mask) == ((1, 2, 3), (1, 3, 5, 4), (0, 0, 0, 1))

    def test_of_two_turns_that_say_the_same_the_ids_tell_which_one_goes_on(self) -> None:
        recorder = TokenRecorder()
        recorder.note([ASK], result(ANSWER, [1], [2, 3]))
        recorder.note([ASK], result(ANSWER, [1], [23]))
        recorder.note([ASK, ANSWER, ASK], result(ANSWER, [1, 2, 3, 4], [5]))
        assert [row.ids for row in training_rows(recorder.turns)] == [(1, 2, 3, 4, 5), (1, 23)]

    @pytest.mark.parametrize("without", [0, 1, 2])
    def test_a_turn_whose_ids_nobody_said_is_refused_wherever_it_is(self, without: int) -> None:
        recorder = TokenRecorder()
        turns: list[tuple[list[dict[str, Any]], list[int], list[int]]] = [
            ([ASK], [1], [2]),
            ([ASK, CALL, TOOL], [1, 2, 3], [4]),
            ([ASK, CALL, TOOL, CALL, TOOL], [1, 2, 3, 4, 5], [6]),
        ]
        for number, (messages, prompt, ids) in enumerate(turns):
            recorder.note(messages, result(CALL, *(([], []) if number == without else (prompt, ids))))
        with pytest.raises(TokensError, match=f"Turn {without + 1} has no token ids"):
            training_rows(recorder.turns)

    def test_where_nothing_was_sampled_nothing_is_missing(self) -> None:
        recorder = TokenRecorder()
        recorder.note([ASK], result(CALL, [1], [2]))
        recorder.note([ASK, CALL, TOOL], result({"role": "assistant", "content": ""}, [], []))
        assert [row.turns for row in training_rows(recorder.turns)] == [(1,)]

    @pytest.mark.parametrize(("prompt", "at"), [([1, 2, 9, 9, 5], 2), ([1, 2, 3], 3), ([9], 0), ([1, 2, 3, 40, 5], 3)])
    def test_a_conversation_that_was_tokenised_anew_is_refused(self, prompt: list[int], at: int) -> None:
        recorder = TokenRecorder()
        recorder.note([ASK], result(CALL, [1, 2], [3, 4]))
        recorder.note([ASK, CALL, TOOL], result(ANSWER, prompt, [6]))
        with pytest.raises(TokensError, match=f"Turn 2 goes on from turn 1, .* those 4 tokens at number {at}: "):
            training_rows(recorder.turns)

    def test_so_is_a_branch_of_it(self) -> None:
        recorder = TokenRecorder()
        recorder.note([ASK], result(CALL, [1], [2]))
        recorder.note([ASK, CALL, TOOL], result(ANSWER, [1, 2, 3], [4]))
        recorder.note([ASK, CALL, {**TOOL, "content": "4"}], result(ANSWER, [1, 7, 8], [9]))
        with pytest.raises(TokensError, match="Turn 3 goes on from turn 1"):
            training_rows(recorder.turns)

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({"ids": []}, "Turn 1 has no token ids"),
            ({"prompt": []}, "Turn 1 has no token ids"),
            ({"logprobs": [-0.1]}, "Turn 1 has 2 sampled tokens and 1 log-probabilities"),
            ({"logprobs": []}, "Turn 1 has 2 sampled tokens and 0 log-probabilities"),
            ({"prompt": None}, "Turn 1 has no token ids"),
            ({"logprobs": None}, "Turn 1 has 2 sampled tokens and 0 log-probabilities"),
            ({"ids": [2, "3"]}, "Turn 1 has a token id that is no whole number from 0 up"),
            ({"ids": [2, -3]}, "Turn 1 has a token id that is no whole number from 0 up"),
            ({"prompt": [True]}, "Turn 1 has a token id that is no whole number from 0 up"),
            ({"logprobs": [-0.1, float("nan")]}, "Turn 1 has a log-probability that is no finite number"),
            ({"logprobs": [-0.1, None]}, "Turn 1 has a log-probability that is no finite number"),
        ],
    )
    def test_tokens_that_are_missing_are_not_made_up(self, fields: dict[str, Any], problem: str) -> None:
        recorder = TokenRecorder()
        recorder.note([ASK], result(ANSWER, **{"prompt": [1], "ids": [2, 3], **fields}))
        with pytest.raises(TokensError, match=problem):
            training_rows(recorder.turns)


class TestWhereTheyStand:
    VLLM = (
        {"prompt_token_ids": [1, 2]},
        {"token_ids": [3], "logprobs": {"content": [{"token": "x", "logprob": -0.25, "top_logprobs": []}]}},
    )

    def test_as_vllm_says_them(self) -> None:
        assert sampled_fields(*self.VLLM) == {
            "token_ids": [3],
            "logprobs": [-0.25],
            "prompt_token_ids": [1, 2],
            "weight_versions": [],
        }

    @pytest.mark.parametrize(
        ("body", "choice", "versions"),
        [
            ({"metadata": {"weight_version": "step-3"}}, {}, ["step-3"]),
            ({}, {"meta_info": {"weight_version": 3}}, [3]),
            ({}, {"weight_versions": [3, 4]}, [3, 4]),
            ({"weight_version": 5}, {}, [5]),
            ({"metadata": None, "weight_version": True}, {"weight_versions": []}, []),
        ],
    )
    def test_the_version_of_the_weights_is_found(
        self, body: dict[str, Any], choice: dict[str, Any], versions: list[int | str]
    ) -> None:
        assert sampled_fields(body, {"token_ids": [3], **choice})["weight_versions"] == versions

    @pytest.mark.parametrize("wrong", [None, "1", [True], [1.5], {"content": [{}]}, {"content": None}])
    def test_what_is_no_list_of_numbers_is_nothing(self, wrong: Any) -> None:
        fields = sampled_fields({"prompt_token_ids": wrong}, {"token_ids": [3], "logprobs": wrong})
        assert fields["prompt_token_ids"] == []
        assert fields["logprobs"] in ([], [1.5])
        assert sampled_fields({}, {"token_ids": wrong})["token_ids"] == []

    def test_what_is_put_into_a_reply_is_found_there(self) -> None:
        said = result(ANSWER, [1, 2], [3, 4], weight_versions=["a", "b"])
        body: dict[str, Any] = {"choices": [{"message": ANSWER}]}
        put_sampled(body, said)
        assert sampled_fields(body, body["choices"][0]) == said_of(said)
