import csv
import json
import logging
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from osmosis_ai.rollout.core.schemas import RolloutRequest, get_max_metadata_size_bytes
from osmosis_ai.rollout.run import (
    REQUIRED_COLUMNS,
    DatasetParseError,
    DatasetReader,
    DatasetRow,
    DatasetValidationError,
    dataset_row_to_request,
)

GOOD = {"system_prompt": "Be brief.", "user_prompt": "What is 1 + 1?", "ground_truth": "2"}
GOOD_ROW = DatasetRow(system_prompt="Be brief.", user_prompt="What is 1 + 1?", ground_truth="2")


def row_with(**columns: Any) -> DatasetRow:
    return cast(DatasetRow, {**GOOD, **columns})


def numbered(number: int) -> dict[str, Any]:
    return {**GOOD, "ground_truth": str(number)}


def write_jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def write_csv(path: Path, *rows: list[str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture
def three_rows(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "three.jsonl", numbered(0), numbered(1), numbered(2))


def truths(rows: list[DatasetRow]) -> list[str]:
    return [row["ground_truth"] for row in rows]


class TestReader:
    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"Dataset file not found: .*gone\.jsonl"):
            DatasetReader(str(tmp_path / "gone.jsonl"))

    @pytest.mark.parametrize("name", ["rows.json", "rows.txt", "rows"])
    def test_an_unknown_suffix_is_refused_with_the_known_ones(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).touch()
        with pytest.raises(DatasetParseError, match=r"Unsupported file format.*\.csv, \.jsonl, \.parquet"):
            DatasetReader(tmp_path / name)

    def test_the_suffix_may_be_in_capitals_and_the_contents_are_not_looked_at(self, tmp_path: Path) -> None:
        (tmp_path / "ROWS.JSONL").write_text("not json")
        assert DatasetReader(tmp_path / "ROWS.JSONL").file_path == tmp_path / "ROWS.JSONL"

    @pytest.mark.parametrize(
        ("limit", "offset", "expected"),
        [(None, 0, ["0", "1", "2"]), (2, 0, ["0", "1"]), (None, 1, ["1", "2"]), (1, 2, ["2"]), (0, 0, []), (9, 9, [])],
    )
    def test_limit_and_offset_choose_a_window(
        self, three_rows: Path, limit: int | None, offset: int, expected: list[str]
    ) -> None:
        assert truths(DatasetReader(three_rows).read(limit, offset)) == expected

    @pytest.mark.parametrize("window", [{"limit": -1}, {"offset": -1}])
    def test_a_negative_window_is_refused_at_once(self, three_rows: Path, window: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="must not be negative"):
            DatasetReader(three_rows).iter_rows(**window)

    @pytest.mark.parametrize("limit", [None, 1, 3, 4])
    def test_its_length_is_the_whole_file_whatever_was_read_before(self, three_rows: Path, limit: int | None) -> None:
        reader = DatasetReader(three_rows)
        reader.read(limit=limit, offset=1)
        reader.read(limit=limit, offset=7)
        assert len(reader) == 3

    def test_lines_outside_the_window_are_not_parsed(self, tmp_path: Path) -> None:
        file = tmp_path / "rows.jsonl"
        file.write_text(f"broken before\n{json.dumps(numbered(1))}\nbroken behind\n")
        reader = DatasetReader(file)
        assert truths(reader.read(limit=1, offset=1)) == ["1"]
        assert len(reader) == 3

    def test_an_unreadable_file_is_a_parse_error(self, tmp_path: Path) -> None:
        (tmp_path / "folder.jsonl").mkdir()
        with pytest.raises(DatasetParseError, match=r"Cannot read .*folder\.jsonl"):
            DatasetReader(tmp_path / "folder.jsonl").read()

    def test_counting_an_unreadable_file_warns_and_gives_what_was_counted(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "folder.csv").mkdir()
        with caplog.at_level(logging.WARNING):
            assert len(DatasetReader(tmp_path / "folder.csv")) == 0
        assert "folder.csv" in caplog.text


class TestJsonl:
    def test_blank_lines_and_a_byte_order_mark_are_passed_over(self, tmp_path: Path) -> None:
        file = tmp_path / "rows.jsonl"
        file.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\n  \n" + json.dumps(GOOD).encode())
        reader = DatasetReader(file)
        assert len(reader) == 2
        assert reader.read() == [GOOD_ROW, GOOD_ROW]

    @pytest.mark.parametrize(
        "line",
        ["{", "nope", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, '{"a": ' + "1" * 5_000 + "}"],
        ids=["cut off", "no json", "NaN", "repeated key", "deep", "absurdly long number"],
    )
    def test_a_bad_line_is_named_by_its_number_in_the_file(self, tmp_path: Path, line: str) -> None:
        file = tmp_path / "rows.jsonl"
        file.write_text(f"{json.dumps(GOOD)}\n\n{line}\n")
        with pytest.raises(DatasetParseError, match="Invalid JSON at line 3"):
            DatasetReader(file).read()

    def test_another_encoding_is_named_by_its_line(self, tmp_path: Path) -> None:
        file = tmp_path / "rows.jsonl"
        file.write_bytes(json.dumps(GOOD).encode() + b'\n{"user_prompt": "caf\xe9"}\n')
        with pytest.raises(DatasetParseError, match=r"Line 2 .* is not UTF-8"):
            DatasetReader(file).read()


class TestCsv:
    HEADER = ("user_prompt", "system_prompt", "ground_truth", "level")

    def test_quoted_commas_quotes_and_newlines_are_text_of_a_cell(self, tmp_path: Path) -> None:
        file = write_csv(tmp_path / "rows.csv", list(self.HEADER), ['1,\n2 and "3"', "s", "6", "easy"], [])
        reader = DatasetReader(file)
        (row,) = reader.read()
        assert list(row.items()) == [
            ("ground_truth", "6"),
            ("user_prompt", '1,\n2 and "3"'),
            ("system_prompt", "s"),
            ("level", "easy"),
        ]
        assert len(reader) == 1

    def test_a_byte_order_mark_does_not_hide_the_first_column(self, tmp_path: Path) -> None:
        file = tmp_path / "rows.csv"
        file.write_bytes(b"\xef\xbb\xbfuser_prompt,system_prompt,ground_truth\nq,s,1\n")
        assert DatasetReader(file).read()[0]["user_prompt"] == "q"

    def test_a_record_with_too_many_cells_is_named(self, tmp_path: Path) -> None:
        file = write_csv(tmp_path / "rows.csv", list(self.HEADER), ["q", "s", "1", "x"], ["q", "s", "1", "x", "y"])
        with pytest.raises(DatasetParseError, match=r"Line 3 .* has 5 cells, but the header has 4"):
            DatasetReader(file).read()

    def test_a_short_record_lacks_a_value(self, tmp_path: Path) -> None:
        file = write_csv(tmp_path / "rows.csv", list(self.HEADER), ["q", "s"])
        with pytest.raises(DatasetValidationError, match="Row 0: 'ground_truth' cannot be null"):
            DatasetReader(file).read()

    def test_an_open_quote_is_reported(self, tmp_path: Path) -> None:
        file = tmp_path / "rows.csv"
        file.write_text('user_prompt,system_prompt,ground_truth\n"q,s,1\n')
        with pytest.raises(DatasetParseError, match=r"The quote that opens at line 2, column 1 of .* is not closed"):
            DatasetReader(file).read()

    def test_a_repeated_column_is_refused(self, tmp_path: Path) -> None:
        file = write_csv(tmp_path / "rows.csv", [*self.HEADER, "level"], ["q", "s", "1", "x", "y"])
        with pytest.raises(DatasetParseError, match="names the column 'level' more than once"):
            DatasetReader(file).read()

    def test_another_encoding_is_named_by_its_line(self, tmp_path: Path) -> None:
        file = tmp_path / "rows.csv"
        file.write_bytes(b"user_prompt,system_prompt,ground_truth\nq,s,1\ncaf\xe9,s,1\n")
        with pytest.raises(DatasetParseError, match=r"Line 3 .* is not UTF-8"):
            DatasetReader(file).read()

    def test_an_empty_file_has_no_rows(self, tmp_path: Path) -> None:
        (tmp_path / "rows.csv").touch()
        reader = DatasetReader(tmp_path / "rows.csv")
        assert (reader.read(), len(reader)) == ([], 0)


class TestParquet:
    def test_it_says_which_package_it_needs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        (tmp_path / "rows.parquet").touch()
        with pytest.raises(DatasetParseError, match="needs the package pyarrow"):
            DatasetReader(tmp_path / "rows.parquet").read()


class TestValidation:
    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ([1], "Row 1: Expected object, got list"),
            (
                {"USER_PROMPT": "q"},
                r"Row 1: Missing required columns: \['ground_truth'\]; it has 'USER_PROMPT': ",
            ),
            ({**GOOD, "ground_truth": None, "user_prompt": 3}, "Row 1: 'ground_truth' cannot be null"),
            ({**GOOD, "user_prompt": 3}, "Row 1: 'user_prompt' must be a string, got int"),
            ({**GOOD, "system_prompt": 0}, "Row 1: 'system_prompt' must be a string, got int"),
            ({**GOOD, "User_Prompt": "q"}, "Row 1: 'user_prompt' and 'User_Prompt' are both 'user_prompt'"),
        ],
    )
    def test_the_first_problem_of_a_row_is_reported(self, tmp_path: Path, row: Any, message: str) -> None:
        reader = DatasetReader(write_jsonl(tmp_path / "rows.jsonl", GOOD, row))
        with pytest.raises(DatasetValidationError, match=message):
            reader.read(offset=1)

    def test_a_number_too_large_for_json_is_reported_with_its_column(self, tmp_path: Path) -> None:
        file = tmp_path / "rows.jsonl"
        file.write_text(json.dumps(GOOD)[:-1] + ', "score": 1e999}')
        with pytest.raises(DatasetValidationError, match="Row 0: 'score' is inf"):
            DatasetReader(file).read()

    def test_required_names_come_out_in_lower_case_and_the_rest_as_it_was(self, tmp_path: Path) -> None:
        row = {"Level": [1, None], "Ground_Truth": " 2 ", "SYSTEM_PROMPT": "s", "user_prompt": "q", "level": 7}
        (read,) = DatasetReader(write_jsonl(tmp_path / "rows.jsonl", row)).read()
        assert list(read) == [*REQUIRED_COLUMNS, "Level", "level"]
        assert read["ground_truth"] == " 2 "
        assert dict(read)["Level"] == [1, None]

    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
    @given(rows=st.lists(st.fixed_dictionaries(dict.fromkeys(REQUIRED_COLUMNS, st.text(min_size=1))), max_size=5))
    def test_any_text_survives_jsonl(self, tmp_path: Path, rows: list[dict[str, str]]) -> None:
        usable = [row for row in rows if all(value.strip() for value in row.values())]
        reader = DatasetReader(write_jsonl(tmp_path / "rows.jsonl", *usable))
        assert [dict(row) for row in reader.read()] == usable
        assert len(reader) == len(usable)


class TestRowToRequest:
    def test_the_request_holds_the_prompts_and_all_other_columns(self) -> None:
        request = dataset_row_to_request(row_with(level=3), 7)
        assert request.rollout_id == "local-7"
        assert request.messages == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is 1 + 1?"},
        ]
        assert request.metadata == {"ground_truth": "2", "row_index": 7, "level": 3}
        assert (request.max_turns, request.max_tokens_total, request.completion_params) == (10, 4096, {})

    def test_arguments_win_over_defaults(self) -> None:
        request = dataset_row_to_request(
            GOOD_ROW, 7, 2, 99, {"seed": 1}, rollout_id_prefix="x", metadata_overrides={"ground_truth": "3"}
        )
        assert (request.rollout_id, request.max_turns, request.max_tokens_total) == ("x-7", 2, 99)
        assert request.completion_params == {"seed": 1}
        assert request.metadata["ground_truth"] == "3"
        assert dataset_row_to_request(GOOD_ROW, 7, rollout_id="mine").rollout_id == "mine"

    def test_a_column_cannot_hide_the_real_row_index(self) -> None:
        row = row_with(row_index=99)
        assert dataset_row_to_request(row, 7).metadata == {
            "ground_truth": "2",
            "row_index": 7,
            "row_index_column": 99,
        }

    @pytest.mark.parametrize(("levels", "usable"), [(100, True), (150, False), (400, False), (5000, False)])
    def test_a_value_may_be_nested_as_deep_as_every_reader_goes(
        self, tmp_path: Path, levels: int, usable: bool
    ) -> None:
        file = tmp_path / "rows.jsonl"
        file.write_text(json.dumps(GOOD)[:-1] + f', "notes": {"[" * levels + "]" * levels}}}\n')
        check = DatasetReader(file).check()
        assert (check.rows, check.bad_rows) == (1, 0 if usable else 1)
        if usable:
            [(number, row)] = DatasetReader(file).usable_rows()
            assert RolloutRequest.model_validate_json(dataset_row_to_request(row, number).model_dump_json())

    def test_columns_that_are_too_large_together_are_told_before_the_first_run(self, tmp_path: Path) -> None:
        file = tmp_path / "rows.jsonl"
        rows = [GOOD, {**GOOD, "notes": "x" * get_max_metadata_size_bytes()}, GOOD]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        check = DatasetReader(file).check()
        assert [place for place, _ in check.problems] == ["line 2"]
        assert "Row 1: its ground truth and further columns are " in str(check.error())

    def test_columns_that_are_too_large_together_are_reported_with_the_row(self) -> None:
        row = row_with(notes="x" * get_max_metadata_size_bytes())
        with pytest.raises(DatasetValidationError, match=r"Row 7: .*exceeds maximum"):
            dataset_row_to_request(row, 7)
