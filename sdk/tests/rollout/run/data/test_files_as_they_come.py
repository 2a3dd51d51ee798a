"""Dataset files as people's tools write them: separators, encodings, packed files, finer times, damaged cells."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from osmosis_ai.rollout.run import DatasetParseError, DatasetReader, DatasetValidationError
from osmosis_ai.rollout.run.data.dataset import DatasetCheck

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROW = {"ground_truth": "2", "user_prompt": "What is 1 + 1?", "system_prompt": "Be brief."}


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [dict(row) for row in DatasetReader(path).read()]


def problems_of(path: Path) -> list[tuple[str, str]]:
    check: DatasetCheck = DatasetReader(path).check()
    return [(place, str(problem)) for place, problem in check.problems]


class TestCsv:
    def written(self, tmp_path: Path, text: str, name: str = "rows.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    @pytest.mark.parametrize(
        "text",
        [
            "ground_truth;user_prompt;system_prompt\n2;What is 1 + 1?;Be brief.\n",
            "ground_truth\tuser_prompt\tsystem_prompt\n2\tWhat is 1 + 1?\tBe brief.\n",
            "sep=;\nground_truth;user_prompt;system_prompt\n2;What is 1 + 1?;Be brief.\n",
            "sep=|\r\nground_truth|user_prompt|system_prompt\r\n2|What is 1 + 1?|Be brief.\r\n",
            "ground_truth|user_prompt|system_prompt\n2|What is 1 + 1?|Be brief.\n",
            "sep=\t\nground_truth\tuser_prompt\tsystem_prompt\n2\tWhat is 1 + 1?\tBe brief.\n",
            " ground_truth , user_prompt,system_prompt \n2,What is 1 + 1?,Be brief.\n",
            'ground_truth, "user_prompt", "system_prompt"\n2, "What is 1 + 1?", "Be brief."\n',
            "ground_truth,user_prompt,system_prompt,,\n2,What is 1 + 1?,Be brief.,,\n",
            "ground_truth,user_prompt,system_prompt\n2,What is 1 + 1?,Be brief.,,\n,,\n ,,\n",
            '"ground_truth";"user_prompt";"system_prompt"\n"2";"What is 1 + 1?";"Be brief."\n',
            "\ufeffsep=;\r\nground_truth;user_prompt;system_prompt\r\n2;What is 1 + 1?;Be brief.\r\n",
        ],
    )
    def test_what_spreadsheets_write_is_read(self, tmp_path: Path, text: str) -> None:
        path = self.written(tmp_path, text)
        assert rows_of(path) == [ROW]
        assert len(DatasetReader(path)) == 1

    def test_a_comma_in_a_quoted_name_makes_no_separator(self, tmp_path: Path) -> None:
        text = '"ground_truth";"a, b, c, d";user_prompt;system_prompt\n2;x;What is 1 + 1?;Be brief.\n'
        assert rows_of(self.written(tmp_path, text)) == [{**ROW, "a, b, c, d": "x"}]

    def test_a_tsv_file_is_one_of_them(self, tmp_path: Path) -> None:
        text = "ground_truth\tuser_prompt\tsystem_prompt\n2\tWhat is 1 + 1?\tBe brief.\n"
        assert rows_of(self.written(tmp_path, text, "rows.tsv")) == [ROW]

    def test_a_large_cell_is_a_cell(self, tmp_path: Path) -> None:
        prompt = "x" * 300_000
        text = f"ground_truth,user_prompt,system_prompt\n2,{prompt},s\n"
        assert rows_of(self.written(tmp_path, text))[0]["user_prompt"] == prompt

    @pytest.mark.parametrize(
        ("records", "opens", "usable"),
        [
            ('2,"x,s\n3,y,s\n4,z,s\n', (3, 3), ["y", "z"]),
            ('2,x,"s\n3,y,s\n4,"z",s\n', (3, 5), ["y", "z"]),
            ('2,"x,s\n"3",y,s\n4,z,"s', (3, 3), ["y"]),
            ('2,"a\nb","s\n4,z,s\n', (4, 4), ["z"]),
            ('2,"a\nb""",s\n"3,y,s', (5, 1), ['a\nb"']),
            ('2,"{\\"a\\": 1}",s\n3,y,s\n', (3, 3), ["y"]),
            ('2, "x, s\n3,y,s\n', (3, 4), ["y"]),
        ],
    )
    def test_a_quote_that_is_not_closed_costs_its_record_alone(
        self, tmp_path: Path, records: str, opens: tuple[int, int], usable: list[str]
    ) -> None:
        separator = ", " if '2, "' in records else ","
        path = self.written(tmp_path, f"sep=,\n{separator.join(ROW)}\n{records}")
        told = [str(error) for _, error in DatasetReader(path).check().problems]
        line, column = opens
        opened = f"The quote that opens at line {line}, column {column} of {path} is not closed"
        assert any(text.startswith(opened) for text in told), told
        assert [row["user_prompt"] for _, row in DatasetReader(path).usable_rows()] == usable

    def test_a_quote_that_is_never_closed_takes_linear_time(self, tmp_path: Path) -> None:
        rows = "".join(f"2,row {number},s\n" for number in range(5_000))
        path = self.written(tmp_path, f'{",".join(ROW)}\n2,"x,s\n{rows}')
        check = DatasetReader(path).check()
        assert (check.rows, check.bad_rows) == (5_001, 1)

    def test_cells_beyond_the_header_are_an_error_of_their_record(self, tmp_path: Path) -> None:
        path = self.written(tmp_path, "ground_truth,user_prompt,system_prompt\n2,x,s,more\n2,y,s\n")
        assert problems_of(path) == [("line 2", f"Line 2 of {path} has 4 cells, but the header has 3.")]

    def test_a_record_that_is_no_csv_or_not_utf8_is_refused_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.csv"
        records = [b"2,x,s", b'2,"x"y,s', b'2,"a\nb",s', b"2,caf\xe9,s", b"2,y,s"]
        path.write_bytes(b"\n".join([b"ground_truth,user_prompt,system_prompt", *records]))
        assert problems_of(path) == [
            (
                "line 3",
                f"The quote that opens at line 3, column 3 of {path} is not closed, or one within it is not doubled.",
            ),
            ("line 6", f"Line 6 of {path} is not UTF-8: save it as UTF-8."),
        ]
        usable = DatasetReader(path).usable_rows()
        assert [(number, row["user_prompt"]) for number, row in usable] == [(0, "x"), (2, "a\nb"), (4, "y")]
        assert len(DatasetReader(path)) == 5

    def test_a_header_that_is_not_utf8_ends_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.csv"
        path.write_bytes(b"ground_truth,user_prompt,caf\xe9\n2,x,y\n")
        with pytest.raises(DatasetParseError, match=r"Line 1 of .* is not UTF-8"):
            rows_of(path)

    def test_rows_with_the_same_mistake_are_one_line(self, tmp_path: Path) -> None:
        path = self.written(tmp_path, "task,user_prompt\n2,x\n3,y\n4,\n")
        same = "Missing required columns: ['ground_truth']; it has 'task', 'user_prompt': say which they are with"
        assert DatasetReader(path).check().error() == (
            f"3 of 3 rows of {path} cannot be used:\n  line 2, line 3, line 4: {same} --columns ground_truth=task."
        )

    @pytest.mark.parametrize("statement", ["sep=|", '"sep=|"'])
    def test_a_statement_of_the_separator_may_be_quoted(self, tmp_path: Path, statement: str) -> None:
        text = f"{statement}\r\nground_truth|user_prompt|system_prompt\r\n2|What is 1 + 1?|Be brief.\r\n"
        assert rows_of(self.written(tmp_path, text)) == [ROW]

    def test_line_ends_of_an_old_mac_are_said_in_a_sentence(self, tmp_path: Path) -> None:
        path = self.written(tmp_path, "ground_truth,user_prompt\r2,x\r")
        with pytest.raises(DatasetParseError, match="holds a carriage return without a line feed behind it"):
            rows_of(path)

    def test_blank_lines_before_the_header_are_no_header(self, tmp_path: Path) -> None:
        text = "\n \nground_truth;user_prompt;system_prompt\n2;What is 1 + 1?;Be brief.\n2;;s\n"
        path = self.written(tmp_path, text)
        assert [row for _, row in DatasetReader(path).usable_rows()] == [ROW]
        assert [place for place, _ in problems_of(path)] == ["line 5"]


@pytest.mark.slow
def test_two_hundred_thousand_rows_are_read_and_only_the_bad_ones_are_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(200_000):
            truth = "" if number == 150_000 else str(number)
            file.write(json.dumps({"question": f"What is {number}?", "answer": truth}) + "\n")
    reader = DatasetReader(path)
    assert len(reader) == 200_000
    assert reader.read(offset=199_999, limit=1)[0]["ground_truth"] == "199999"
    with pytest.raises(DatasetValidationError, match="Row 150000: 'answer' cannot be empty"):
        reader.read()


class TestPacked:
    @pytest.mark.parametrize("suffix", [".jsonl.gz", ".JSONL.GZ", ".csv.gz", ".jsonl.zst", ".csv.zst"])
    def test_the_text_formats_may_be_packed(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"rows.v2{suffix}"
        text = json.dumps(ROW) if "jsonl" in suffix.lower() else ",".join(ROW) + "\n" + ",".join(ROW.values())
        if suffix.endswith(".zst"):
            with arrow.CompressedOutputStream(str(path), "zstd") as stream:
                stream.write(text.encode())
        else:
            path.write_bytes(gzip.compress(text.encode()))
        assert rows_of(path) == [ROW]

    @pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
    @pytest.mark.parametrize("damage", ["nonsense", "cut"])
    def test_a_damaged_one_is_told_in_a_sentence(self, tmp_path: Path, suffix: str, damage: str) -> None:
        path = tmp_path / f"rows{suffix}"
        if suffix == ".jsonl.gz":
            whole = gzip.compress(json.dumps(ROW).encode())
        else:
            with arrow.CompressedOutputStream(str(path), "zstd") as stream:
                stream.write(json.dumps(ROW).encode())
            whole = path.read_bytes()
        path.write_bytes(b"nonsense" * 9 if damage == "nonsense" else whole[:-4])
        with pytest.raises(DatasetParseError, match=r"rows\.jsonl\.\w+ is not a whole (gzip file: .+|zstd file)\."):
            rows_of(path)

    @pytest.mark.parametrize(
        ("start", "suffix"),
        [(gzip.compress(b"{}"), ".gz"), (b"\x28\xb5\x2f\xfd", ".zst")],
        ids=["gzip", "zstd"],  # a gzip file holds the time, and two processes must collect the same tests
    )
    def test_one_that_does_not_say_so_is_told_what_its_name_lacks(
        self, tmp_path: Path, start: bytes, suffix: str
    ) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_bytes(start)
        with pytest.raises(DatasetParseError, match=rf"rows\.jsonl is compressed: let its name end in \{suffix}\."):
            rows_of(path)

    @pytest.mark.parametrize("name", ["rows.parquet.gz", "rows.gz", "rows.zip"])
    def test_anything_else_packed_is_refused_with_what_is_read(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).touch()
        with pytest.raises(DatasetParseError, match=r"Unsupported file format .*\.jsonl.*\.gz or \.zst"):
            DatasetReader(tmp_path / name)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_unicode_is_named_with_what_to_do(tmp_path: Path, suffix: str, encoding: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(json.dumps(ROW).encode(encoding))
    with pytest.raises(DatasetParseError, match=r"rows\.\w+ is .*UTF-(16|32).*: save it as UTF-8\."):
        rows_of(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("user_prompt", "\ud800"),
        ("ground_truth", "\udfff"),
        ("level", "\ud83d"),
        ("tags", ["a", {"b": "\udc00"}]),
        ("\ud800", 1),
    ],
)
def test_half_of_a_surrogate_pair_is_an_error_of_its_row(tmp_path: Path, column: str, value: Any) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (ROW, {**ROW, column: value}, ROW)))
    [(place, problem)] = problems_of(path)
    assert place == "line 2"
    assert problem.startswith(f"Row 1: {column!a} has half of a surrogate pair (\\ud")


def test_a_row_without_the_columns_says_which_it_has(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"task": "x", "result": 2}\n')
    [(_, problem)] = problems_of(path)
    assert problem.endswith(
        "['ground_truth', 'user_prompt']; it has 'task', 'result': say which they are with --columns"
        " ground_truth=COLUMN,user_prompt=COLUMN."
    )


class TestParquet:
    def written(self, tmp_path: Path, **columns: Any) -> Path:
        path = tmp_path / "rows.parquet"
        rows = len(next(iter(columns.values())))
        parquet.write_table(arrow.table({**{name: [text] * rows for name, text in ROW.items()}, **columns}), path)
        return path

    @pytest.mark.parametrize("image", [b"\x89PNG", {"bytes": b"\x89PNG", "path": "a.png"}, [{"bytes": b"\x89PNG"}]])
    def test_bytes_are_refused_with_a_remedy(self, tmp_path: Path, image: Any) -> None:
        [(_, told)] = problems_of(self.written(tmp_path, image=[image]))
        assert "'image' holds bytes, which JSON cannot carry: leave the column out, or write an image as a part" in told

    def test_times_of_nanoseconds_are_read_to_the_microsecond(self, tmp_path: Path) -> None:
        at = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
        since_1970 = int((at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1000 + 789
        path = self.written(
            tmp_path,
            at=arrow.array([since_1970], arrow.timestamp("ns", "UTC")),
            local=arrow.array([since_1970], arrow.timestamp("ns")),
            took=arrow.array([1_500_000_789], arrow.duration("ns")),
            of_day=arrow.array([1_000_000_789], arrow.time64("ns")),
            deep=arrow.array([[{"at": since_1970}]], arrow.list_(arrow.struct({"at": arrow.timestamp("ns")}))),
            mapped=arrow.array([[("a", since_1970)]], arrow.map_(arrow.string(), arrow.timestamp("ns"))),
            pair=arrow.array([[since_1970] * 2], arrow.list_(arrow.timestamp("ns"), 2)),
        )
        [row] = rows_of(path)
        assert row["at"] == "2026-01-02T03:04:05.000006+00:00"
        assert row["local"] == "2026-01-02T03:04:05.000006"
        assert row["took"] == 1.5
        assert row["of_day"] == "00:00:01"
        assert row["deep"] == [{"at": "2026-01-02T03:04:05.000006"}]
        assert row["mapped"] == [["a", "2026-01-02T03:04:05.000006"]]
        assert row["pair"] == ["2026-01-02T03:04:05.000006"] * 2

    def test_nan_is_null_as_tables_have_it_and_no_truth(self, tmp_path: Path) -> None:
        nan = float("nan")
        path = self.written(tmp_path, level=[nan, 1.0, nan], deep=[[{"a": nan}]] * 3, ground_truth=[2, nan, 3])
        assert problems_of(path) == [("row 1", "Row 1: 'ground_truth' cannot be null")]
        usable = [dict(row) for _, row in DatasetReader(path).usable_rows()]
        assert [row["ground_truth"] for row in usable] == [2, 3]
        assert [(row["level"], row["deep"]) for row in usable] == [(None, [{"a": None}])] * 2

    def test_infinity_is_an_error_of_its_row(self, tmp_path: Path) -> None:
        [(place, told)] = problems_of(self.written(tmp_path, level=[float("inf"), 1.0]))
        assert (place, told) == ("row 0", "Row 0: 'level' is inf, which JSON cannot carry")

    def test_what_python_has_no_value_for_is_an_error_of_its_row_and_column(self, tmp_path: Path) -> None:
        seconds_of_year_10000 = 253_402_300_800
        path = self.written(tmp_path, when=arrow.array([0, seconds_of_year_10000, 1], arrow.timestamp("s")))
        [(place, problem)] = problems_of(path)
        assert place == "row 1"
        assert problem.startswith("The column 'when' cannot be read: ")
        assert DatasetReader(path).check().rows == 3
