"""``osmosis trainer --policy``: what it refuses. That it runs is shown by the example that uses it."""

from pathlib import Path

import pytest

from osmosis_ai.cli import main

MODULE = """
class Policy:
    def chat_completions(self, messages): ...

class Nothing: ...
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "policy_module.py").write_text(MODULE)
    (tmp_path / "rows.jsonl").write_text('{"system_prompt": "Add.", "user_prompt": "1?", "ground_truth": "1"}\n')
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--policy", "policy_module:Nothing"], 2, "a class with the method chat_completions"),
        (["--policy", "policy_module:Absent"], 1, "Absent"),
        (["--policy", "absent_module:Policy"], 1, "absent_module"),
        (["--policy", "policy_module"], 2, "Expected format"),
        (["--policy", "policy_module:Policy", "--model", "gpt-4o"], 2, "leave out --model"),
        (["--policy", "policy_module:Policy", "--base-url", "http://127.0.0.1:1"], 2, "leave out --model"),
    ],
)
def test_what_cannot_be_a_policy_is_one_sentence(
    arguments: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trainer", "-d", "rows.jsonl", "-m", "agent:loop", *arguments]) == code

    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
