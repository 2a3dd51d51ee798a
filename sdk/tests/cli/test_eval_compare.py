import contextlib
import json
from pathlib import Path

import pytest
from support.model_endpoint import ModelEndpoint, say

from osmosis_ai.cli import main


@pytest.fixture
def evaluations(adder_project: Path) -> Path:
    """``a.json`` of a model that adds, ``b.json`` of one that does not."""
    (adder_project / "scores.py").write_text(
        "def right(solution_str, ground_truth):\n    return solution_str.endswith(f'#### {ground_truth}') * 1.0\n"
    )
    for name, endpoint in (("a", ModelEndpoint()), ("b", ModelEndpoint(otherwise=lambda body: say("#### no")))):
        with endpoint:
            arguments = [
                "-m",
                "agent:adder",
                "-d",
                "rows.jsonl",
                "--eval-fn",
                "scores:right",
                "-q",
                "-o",
                f"{name}.json",
            ]
            assert main(["eval", *arguments, "--model", f"model-{name}", "--base-url", endpoint.url]) == 0
    return adder_project


def test_two_saved_evaluations_are_compared_row_by_row(evaluations: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "compare", "a.json", "b.json"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("A: a.json (model-a)\nB: b.json (model-b)\n")
    assert "scores:right: A minus B +1.000" in out
    assert "over 3 rows (3 better, 0 equal, 0 worse)" in out
    assert main(["eval", "compare", "b.json", "a.json", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["comparison"]["scores:right"]["difference"] == -1.0


def test_it_is_listed_and_helped(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, text in (
        (["--help"], "  eval compare "),
        (["eval", "--help"], "osmosis eval compare A.json B.json"),
        (["eval", "compare", "--help"], "paired by row"),
    ):
        with contextlib.suppress(SystemExit):
            main(arguments)
        assert text in capsys.readouterr().out


def test_what_cannot_be_compared_is_one_sentence(evaluations: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads((evaluations / "b.json").read_text())
    document["config"]["dataset"]["sha256"] = "other"
    (evaluations / "other.json").write_text(json.dumps(document))
    (evaluations / "none.json").write_text("[1]")
    for second, code, sentence in (
        ("gone.json", 2, "gone.json does not exist"),
        ("none.json", 1, "none.json is no results file of osmosis eval"),
        ("other.json", 1, "are of different datasets"),
    ):
        assert main(["eval", "compare", "a.json", second]) == code
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
