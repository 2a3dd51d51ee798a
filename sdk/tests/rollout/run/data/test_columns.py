"""Records as other tools write them: which part is the prompt, and which the truth."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout.run import DatasetReader, DatasetValidationError, dataset_row_to_request
from osmosis_ai.rollout.run.data.columns import TARGETS, Source, parsed

ASK = {"role": "user", "content": "What is 1 + 1?"}
SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "#### 2"}
HUMAN, GPT = {"from": "human", "value": "What is 1 + 1?"}, {"from": "gpt", "value": "2"}
QUESTION = [{"role": "user", "content": "q"}]
VERL = {"style": "rule", "ground_truth": "2"}
PARTS = [{"type": "text", "text": "What?"}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def row_of(tmp_path: Path, record: dict[str, Any], columns: str | None = None) -> dict[str, Any]:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(record))
    [row] = DatasetReader(path, parsed(columns)).read()
    return dict(row)


def request_of(row: Any) -> tuple[list[Any], dict[str, Any]]:
    request = dataset_row_to_request(row, 0)
    return request.messages, request.metadata


@pytest.mark.parametrize(
    ("record", "messages", "metadata"),
    [
        (
            {"question": "q", "answer": "1 + 1 = 2\n#### 2"},
            QUESTION,
            {"ground_truth": "1 + 1 = 2\n#### 2"},
        ),
        (
            {"problem": "q", "solution": "2", "level": 3},
            QUESTION,
            {"ground_truth": "2", "level": 3},
        ),
        (
            {
                "prompt": [SYSTEM, ASK],
                "reward_model": VERL,
                "extra_info": {"index": 7},
            },
            [SYSTEM, ASK],
            {"ground_truth": "2", "reward_model": VERL, "extra_info": {"index": 7}},
        ),
        ({"prompt": [ASK], "answer": "2"}, [ASK], {"ground_truth": "2"}),
        ({"prompt": "q", "answer": "2"}, QUESTION, {"ground_truth": "2"}),
        ({"messages": [SYSTEM, ASK, ANSWER]}, [SYSTEM, ASK], {"ground_truth": "#### 2"}),
        ({"messages": [SYSTEM, ASK, ANSWER, ASK], "label": "2"}, [SYSTEM, ASK, ANSWER, ASK], {"ground_truth": "2"}),
        ({"messages": [ASK], "answer": "2", "system": "Be brief."}, [SYSTEM, ASK], {"ground_truth": "2"}),
        ({"user_prompt": "q", "ground_truth": "2"}, QUESTION, {"ground_truth": "2"}),
        (
            {
                "user_prompt": [*PARTS, IMAGE],
                "system_prompt": "Be brief.",
                "ground_truth": "2",
            },
            [SYSTEM, {"role": "user", "content": [*PARTS, IMAGE]}],
            {"ground_truth": "2"},
        ),
        (
            {"messages": [{"role": "user", "content": [IMAGE]}], "ground_truth": "2"},
            [{"role": "user", "content": [IMAGE]}],
            {"ground_truth": "2"},
        ),
        (
            {"conversations": [{"from": "system", "value": "Be brief."}, HUMAN, GPT]},
            [SYSTEM, ASK],
            {"ground_truth": "2"},
        ),
        ({"conversations": [ASK, ANSWER]}, [ASK], {"ground_truth": "#### 2"}),
        (
            {"conversations": [HUMAN, GPT], "answer": "3"},
            [ASK],
            {"ground_truth": "3"},
        ),
        # A table has null, or nothing, where there is no system prompt.
        *(
            ({"user_prompt": "q", "ground_truth": "2", "system_prompt": nothing}, QUESTION, {"ground_truth": "2"})
            for nothing in (None, "", " \n")
        ),
        ({"messages": [ASK], "answer": "2", "system_prompt": " "}, [ASK], {"ground_truth": "2"}),
        ({"prompt": [SYSTEM, ASK], "answer": "2", "system_prompt": None}, [SYSTEM, ASK], {"ground_truth": "2"}),
        ({"question": "q", "answer": "2", "system": None}, QUESTION, {"ground_truth": "2", "system": None}),
        # What is named as ours wins, and what is not needed stays a column of its own.
        (
            {"user_prompt": "q", "ground_truth": "2", "prompt": "p", "question": "x", "answer": "y", "messages": [ASK]},
            QUESTION,
            {"ground_truth": "2", "prompt": "p", "question": "x", "answer": "y", "messages": [ASK]},
        ),
        (
            {"question": "q", "answer": "2", "messages": [ASK]},
            QUESTION,
            {"ground_truth": "2", "messages": [ASK]},
        ),
    ],
)
def test_the_usual_shapes_need_no_flag(
    tmp_path: Path, record: dict[str, Any], messages: list[Any], metadata: dict[str, Any]
) -> None:
    assert request_of(row_of(tmp_path, record)) == (messages, {**metadata, "row_index": 0})


@pytest.mark.parametrize("truth", [7, 7.5, True, [7], {"answer": 7}, [], 0, False])
def test_a_ground_truth_may_be_any_json_value(tmp_path: Path, truth: Any) -> None:
    assert row_of(tmp_path, {"question": "q", "ground_truth": truth})["ground_truth"] == truth


def test_columns_are_named_and_may_be_paths_and_json(tmp_path: Path) -> None:
    record = {"task": {"text": "q"}, "gold": '{"n": 2}', "how": "Be brief.", "answer": "not this one"}
    row = row_of(tmp_path, record, "user_prompt=task.text, ground_truth=gold:json,system_prompt=how")
    assert row == {
        "user_prompt": "q",
        "ground_truth": {"n": 2},
        "system_prompt": "Be brief.",
        "answer": "not this one",
        "task": {"text": "q"},
    }


def test_what_is_named_wins_over_our_own_names(tmp_path: Path) -> None:
    record = {"user_prompt": "q", "ground_truth": "2", "better": "3"}
    assert row_of(tmp_path, record, "ground_truth=better")["ground_truth"] == "3"


def test_a_prompt_of_messages_may_be_named(tmp_path: Path) -> None:
    row = row_of(tmp_path, {"chat": [SYSTEM, ASK], "answer": "2"}, "prompt_messages=chat")
    assert request_of(row)[0] == [SYSTEM, ASK]


def test_its_texts_are_there_for_reports(tmp_path: Path) -> None:
    row = row_of(tmp_path, {"messages": [SYSTEM, ASK, ANSWER]})
    assert (row["system_prompt"], row["user_prompt"]) == ("Be brief.", "What is 1 + 1?")


@pytest.mark.parametrize(
    ("record", "columns", "problem"),
    [
        ({"question": "q", "gold": "{"}, "ground_truth=gold:json", "Row 0: 'gold' is not JSON, as --columns says: "),
        (
            {"question": "q"},
            "ground_truth=gold",
            "Row 0: Missing required columns",
        ),
        ({"chat": [{"text": "q"}], "answer": "2"}, "prompt_messages=chat", "Row 0: Missing required columns"),
        ({"user_prompt": "q", "ground_truth": None, "answer": "2"}, None, "Row 0: 'ground_truth' cannot be null"),
    ],
)
def test_what_does_not_fit_is_an_error_of_its_row(
    tmp_path: Path, record: dict[str, Any], columns: str | None, problem: str
) -> None:
    with pytest.raises(Exception, match=problem):
        row_of(tmp_path, record, columns)


@pytest.mark.parametrize(
    "text", ["question", "prompt=question", "user_prompt=", "user_prompt=:json", "user_prompt=a,user_prompt=b"]
)
def test_a_wrong_flag_says_what_is_right(text: str) -> None:
    with pytest.raises(ValueError, match=r"^--columns: .* is not TARGET=COLUMN, once for each of ground_truth, "):
        parsed(text)


@given(st.dictionaries(st.sampled_from(TARGETS), st.text("abc.", min_size=1), min_size=1))
def test_the_flag_says_what_it_says(chosen: dict[str, str]) -> None:
    text = ",".join(f"{target}={name}" for target, name in chosen.items())
    assert parsed(text) == {target: Source(name) for target, name in chosen.items()}


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        ({"messages": json.dumps([ASK]), "answer": "2"}, "prompt_messages=messages:json"),
        ({"messages": json.dumps([ASK, ANSWER])}, "prompt_messages=messages:json"),
        ({"prompt": json.dumps([SYSTEM, ASK]), "answer": "2"}, "prompt_messages=prompt:json"),
        ({"the talk": json.dumps([ASK]), "gold": "2"}, "'prompt_messages=the talk:json,ground_truth=gold'"),
        ({"talk": json.dumps([HUMAN, GPT])}, "prompt_messages=talk:json"),
        ({"talk": [ASK], "reward": VERL}, "prompt_messages=talk,ground_truth=reward.ground_truth"),
        (
            {"prompt": json.dumps([ASK]), "reward_model": json.dumps(VERL)},
            "prompt_messages=prompt:json,ground_truth=reward_model.ground_truth:json",
        ),
        ({"user_prompt": "q", "the gold": "2"}, "'ground_truth=the gold'"),
        ({"task": "q", "gold": "2"}, "ground_truth=COLUMN,user_prompt=COLUMN"),
        ({"user_prompt": "q", "\ud800": "2"}, "ground_truth=COLUMN"),
        ({"user_prompt": "q", "a,b": "2"}, "ground_truth=COLUMN"),
        ({"user_prompt": "q", "": "2"}, "ground_truth=COLUMN"),
    ],
)
def test_what_is_proposed_works_when_it_is_pasted(tmp_path: Path, record: dict[str, Any], columns: str) -> None:
    with pytest.raises(DatasetValidationError) as told:
        row_of(tmp_path, record)
    assert str(told.value).endswith(f" with --columns {columns}.")
    [pasted] = shlex.split(columns)
    if "COLUMN" not in columns:
        assert row_of(tmp_path, record, pasted)["ground_truth"] in ("2", "#### 2")


@pytest.mark.parametrize("column", ["prompt", "messages"])
def test_messages_in_pythons_notation_are_no_prompt(tmp_path: Path, column: str) -> None:
    with pytest.raises(DatasetValidationError, match=f"'{column}' holds messages .* which is no JSON: .* json.dumps"):
        row_of(tmp_path, {column: str([ASK]), "answer": "2"})


def test_the_usual_names_are_found_in_any_case(tmp_path: Path) -> None:
    row = row_of(tmp_path, {"Question": "q", "ANSWER": "2"})
    assert (row["user_prompt"], row["ground_truth"], len(row)) == ("q", "2", 3)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"messages": [], "answer": "2"}, "'messages' must be a text or a list of chat messages, .* got list"),
        ({"messages": [ANSWER], "answer": "2"}, "'messages' must be a text or a list of chat messages"),
        ({"messages": [{"from": "a tool", "value": "q"}], "answer": "2"}, "'messages' must be a text or a list"),
        ({"conversations": [HUMAN, {"from": [], "value": "q"}]}, "'conversations' must be a text or a list"),
        ({"question": None, "answer": "2"}, "'question' must be a text .* got null"),
        ({"Question": 7, "answer": "2"}, "'Question' must be a text .* got int"),
        ({"question": "q", "answer": None}, "'answer' cannot be null"),
        ({"prompt": [{"role": "user", "content": None}], "answer": "2"}, "last message has no text and no parts"),
        ({"prompt": [{"role": "user", "content": " "}], "answer": "2"}, "last message has no text and no parts"),
        ({"prompt": [{"role": "user"}], "answer": "2"}, "last message has no text and no parts"),
        ({"prompt": [{"role": "user", "content": []}], "answer": "2"}, "last message has no text and no parts"),
        ({"user_prompt": "q", "conversations": None}, "--columns ground_truth=COLUMN"),
    ],
)
def test_what_has_a_usual_name_and_is_none_is_told_as_what_it_is(
    tmp_path: Path, record: dict[str, Any], said: str
) -> None:
    with pytest.raises(DatasetValidationError, match=said):
        row_of(tmp_path, record)


@pytest.mark.parametrize(
    ("record", "columns", "said"),
    [
        ({"question": "\ud83d", "answer": 1}, None, "'question' has half of a surrogate pair"),
        ({"question": "", "answer": 1}, None, "'question' cannot be empty"),
        ({"question": "q", "answer": ""}, None, "'answer' cannot be empty"),
        ({"question": "q", "answer": float("inf")}, None, "'answer' is inf"),
        ({"q": "q", "a": 1, "s": 3}, "user_prompt=q,ground_truth=a,system_prompt=s", "'s' must be a string, got int"),
        ({"q": 1, "a": 1}, "user_prompt=q,ground_truth=a", "'q' must be a string, got int"),
        ({"q": "q", "r": {"t": "\ud83d"}}, "user_prompt=q,ground_truth=r.t", "'r.t' has half of a surrogate pair"),
        ({"User_Prompt": " ", "answer": 1}, None, "'User_Prompt' cannot be empty"),
        (
            {"prompt": [{"role": "user", "content": None}], "answer": 1},
            None,
            "'prompt': the user's last message has no",
        ),
        ({"prompt": [{"role": "user", "content": "\ud83d"}], "answer": 1}, None, "'prompt' has half of a surrogate"),
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}]},
            None,
            "'messages' cannot be empty",
        ),
    ],
)
def test_a_bad_row_is_told_by_the_column_that_the_file_has(
    tmp_path: Path, record: dict[str, Any], columns: str | None, said: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(record).replace("Infinity", "1e999"))
    with pytest.raises(DatasetValidationError) as told:
        DatasetReader(str(path), columns=parsed(columns)).read()
    assert f"Row 0: {said}" in str(told.value)
