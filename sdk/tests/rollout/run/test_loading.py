import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from support.model_endpoint import ModelEndpoint, refuse

from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError
from osmosis_ai.rollout.run import formats, loading
from osmosis_ai.rollout.run.options import RunOptions, build_completion_params

ROW = {"system_prompt": "s", "user_prompt": "u", "ground_truth": "g"}


@pytest.fixture
def printed() -> tuple[Console, Callable[[], str]]:
    file = StringIO()
    return Console(file=file), file.getvalue


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0ms"), (999.4, "999ms"), (999.6, "1.0s"), (59_940, "59.9s"), (59_960, "1m0.0s"), (4_505_000, "75m5.0s")],
)
def test_durations(milliseconds: float, text: str) -> None:
    assert formats.format_duration(milliseconds) == text


def test_tokens_and_sampling_settings() -> None:
    assert formats.format_tokens(1234567) == "1,234,567"
    assert build_completion_params(0, None) == {"temperature": 0}
    assert build_completion_params(None, 5) == {"max_tokens": 5}


class TestDataset:
    def load(self, console: Console, path: Path, limit: int | None = None, offset: int = 0, strict: bool = True) -> Any:
        options = RunOptions(dataset=str(path), limit=limit, offset=offset, strict=strict)
        dataset = loading.check_dataset(options, loading.speaker(console, False), "nothing there", "testing")
        return list(dataset.numbered_rows())

    def problem_of(self, console: Console, path: Path) -> str:
        with pytest.raises(CLIError) as caught:
            self.load(console, path)
        return str(caught.value)

    @pytest.mark.parametrize(
        ("limit", "offset", "line"),
        [
            (None, 0, "  Total rows: 5\n"),
            (2, 0, "  Total rows: 5 (testing 2)\n"),
            (None, 3, "  Total rows: 5 (testing 2)\n"),
        ],
    )
    def test_it_tells_how_many_rows_there_are_and_are_taken(
        self, printed: Any, tmp_path: Path, limit: int | None, offset: int, line: str
    ) -> None:
        console, text = printed
        path = tmp_path / "rows.jsonl"
        path.write_text(f"{json.dumps(ROW)}\n" * 5)
        rows = self.load(console, path, limit, offset)
        assert len(rows) == (limit or 5 - offset)
        assert text().endswith(line)

    def test_the_other_rows_are_run_all_the_same(
        self, printed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text(f"{json.dumps(ROW)}\n{{broken\n{json.dumps(ROW)}\n")
        assert self.load(printed[0], path, strict=False) == [(0, ROW), (2, ROW)]
        error = capsys.readouterr().err
        assert error.startswith(f"Invalid JSON at line 2 of {path}: ")
        assert error.endswith("What is left to run: 2 rows; --strict runs none then.\n")

    def test_where_no_row_can_be_used_nothing_is_run(self, printed: Any, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text("{broken\n")
        with pytest.raises(CLIError, match="Invalid JSON at line 1"):
            self.load(printed[0], path, strict=False)

    def test_all_bad_rows_are_told_together(self, printed: Any, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        lines = [
            json.dumps(ROW),
            "{broken",
            json.dumps({**ROW, "ground_truth": None}),
            "",
            json.dumps({"user_prompt": "x"}),
        ]
        path.write_text("\n".join(lines))
        first, *others = self.problem_of(printed[0], path).splitlines()
        assert first == f"3 of 4 rows of {path} cannot be used:"
        assert others[0].startswith("  line 2: Invalid JSON at line 2")
        assert others[1] == "  line 3: Row 2: 'ground_truth' cannot be null"
        assert others[2] == (
            "  line 5: Row 3: Missing required columns: ['ground_truth']; it has 'user_prompt': say which they are with"
            " --columns ground_truth=COLUMN."
        )

    def test_one_bad_row_is_one_sentence(self, printed: Any, tmp_path: Path) -> None:
        path = tmp_path / "rows.csv"
        path.write_text("\ufeffsystem_prompt,user_prompt,ground_truth\ns,u,g\ns,,g\n")
        assert self.problem_of(printed[0], path) == f"{path}, line 3: Row 1: 'user_prompt' cannot be empty"

    def test_no_rows_and_no_file_are_told(self, printed: Any, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        with pytest.raises(UsageError, match=f"Dataset file not found: {path}"):
            self.load(printed[0], path)
        path.write_text("\n")
        assert self.problem_of(printed[0], path) == "nothing there"


class TestClient:
    def test_it_tells_the_model_as_typed(self, printed: Any) -> None:
        console, text = printed
        say = loading.speaker(console, False)
        client = loading.create_llm_client("Qwen/Qwen3", None, "http://127.0.0.1:1/v1", say)
        assert text() == "Connecting to endpoint: http://127.0.0.1:1/v1\n  Model: Qwen/Qwen3\n"
        assert client.model == "openai/Qwen/Qwen3"

    def test_a_wrong_one_is_a_sentence(self, printed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        console, text = printed
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        monkeypatch.delenv("LITELLM_API_KEY", raising=False)
        with pytest.raises(CLIError, match="Missing API key for provider 'openai'"):
            loading.create_llm_client("gpt-4o", None, None, loading.speaker(console, False))
        assert text() == ""

    async def test_the_check_gives_an_error_or_a_warning(self, printed: Any) -> None:
        console, text = printed
        with ModelEndpoint(refuse(404, "no such model"), refuse(400, "[/x] \x1b[2J bad")) as endpoint:
            client = loading.create_llm_client("m", None, endpoint.url, loading.speaker(console, True))
            with pytest.raises(CLIError, match="no such model"):
                await loading.verify_llm_client(client, loading.speaker(console, False))
            await loading.verify_llm_client(client, loading.speaker(console, False))
            await client.close()
        assert "Warning: the provider refused a test call" in text()
        assert "[/x]  bad" in text()


class TestKey:
    def test_it_may_come_from_a_file_or_from_standard_input(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "key").write_text("secret\n")
        monkeypatch.setattr("sys.stdin", StringIO("typed\n"))
        assert loading.read_api_key(f"@{tmp_path / 'key'}") == "secret"
        assert loading.read_api_key("-") == "typed"
        assert loading.read_api_key("plain") == "plain"
        assert loading.read_api_key(None) is None

    @pytest.mark.parametrize("given", ["@gone", "-"])
    def test_none_there_is_a_sentence(self, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", StringIO(""))
        with pytest.raises(UsageError, match=f"--api-key {given}: "):
            loading.read_api_key(given)
