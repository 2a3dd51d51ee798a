"""``osmosis traces export``: nothing lost, nothing unwanted, and what was left out is said."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.planted import mode_of
from support.traces import TraceMaker, answer, call, calling, saying

from osmosis_ai.cli import main


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    folder = tmp_path / "traces" / "1795600000"
    for name, reward in (("good", 1.0), ("fair", 0.5), ("bad", 0.0)):
        maker = TraceMaker(name).start("Été 🌞 \u202e1 + 2?")
        maker.turn(1, calling(call(1, "add", a=1, b=2.5)) | {"reasoning_content": "hm", "odd": [1, {"x": None}]})
        maker.messages.append(answer(1, "3"))
        maker.turn(2, saying("#### 3")).end(reward=reward).delivered().write(folder)
    maker = TraceMaker("failed").start("?").add("rollout_error", error="boom")
    maker.end(status="ERROR", error_message="boom", extra_fields={"outcome": "timeout"}).write(folder)
    TraceMaker("running").start("?").write(folder)
    TraceMaker("without").start("?").end().write(folder)
    return folder.parent


def exported(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    code = main(["traces", "export", *arguments])
    out, said = capfdbinary.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], said.decode()


def test_messages_and_tools_are_as_they_were(traces: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    code, examples, _ = exported(capfdbinary, str(traces), "--min-reward", "1")
    [example] = examples
    lines = (traces / "1795600000" / "good.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    result = next(event for event in events if event["event"] == "rollout_result")
    assert code == 0
    assert list(example) == ["messages", "tools"]
    assert json.dumps(example["messages"]) == json.dumps(result["final_messages"])
    assert example["tools"] == events[0]["tools"]


@pytest.mark.parametrize(
    ("options", "names", "said"),
    [
        ([], 4, "4 of 6 rollouts exported; left out: 1 status ERROR, 1 status UNFINISHED."),
        (["--min-reward", "0.5"], 2, "1 reward below 0.5"),
        (["--max-reward", "0.5"], 2, "1 no reward"),
        (["--status", "ERROR"], 1, "4 status COMPLETED"),
        (["--status", "any"], 5, "1 no result"),
        (["--status", "any", "--outcome", "timeout"], 1, "4 outcome success"),
        (["--outcome", "success", "--outcome", "timeout"], 4, "1 status ERROR"),
    ],
)
def test_filters(
    traces: Path, capfdbinary: pytest.CaptureFixture[bytes], options: list[str], names: int, said: str
) -> None:
    code, examples, told = exported(capfdbinary, str(traces), *options)
    assert (code, len(examples)) == (0, names)
    assert said in told


def test_a_file_is_written_whole(traces: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output = tmp_path / "new" / "out.jsonl"
    code, examples, told = exported(capfdbinary, str(traces), "-o", str(output))
    assert (code, examples) == (0, [])
    assert len(output.read_text(encoding="utf-8").splitlines()) == 4
    assert f"4 of 6 rollouts exported to {output}" in told
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


def test_nothing_to_export_is_a_failure(traces: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    code, _, told = exported(capfdbinary, str(traces), "--min-reward", "2")
    assert code == 1
    assert told.startswith("0 of 6 rollouts exported; left out:")


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["traces", "export", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["traces", "export", str(tmp_path), "--status", "DONE"]) == 2
    assert "--status is COMPLETED, ERROR or any" in capsys.readouterr().err


def test_files_that_are_not_read_are_said(traces: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    os.mkfifo(traces / "fifo.jsonl")
    with (traces / "large.jsonl").open("wb") as file:
        file.truncate(50 * 1024**3)
    code, examples, said = exported(capfdbinary, str(traces), "--outcome", "success")
    assert (code, len(examples)) == (0, 4)
    assert said.endswith("; not read: 1 file.\n")


@pytest.mark.parametrize("command", [["traces", "export"], ["view"]])
def test_a_fifo_in_the_place_of_traces_is_a_wrong_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert main([*command, str(tmp_path / "fifo")]) == 2
    assert "is neither a folder nor a regular file" in capsys.readouterr().err


def test_what_is_exported_is_its_owners_alone(traces: Path, tmp_path: Path) -> None:
    assert main(["traces", "export", str(traces), "-o", str(tmp_path / "new" / "data")]) == 0
    assert mode_of(tmp_path / "new" / "data") == 0o600
    assert mode_of(tmp_path / "new") == 0o700


def test_json_tells_what_was_left_out(traces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["traces", "export", str(traces), "-o", str(tmp_path / "data"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["written"] == len((tmp_path / "data").read_text().splitlines()) > 0
    assert told["written"] + sum(told["left_out"].values()) == told["rollouts"]


def test_rows_are_those_of_the_tokens_in_the_trace_and_what_makes_none_is_counted_by_reason_with_an_example(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    whole, anew = [1, 2, 3, 4], [1, 9, 3, 4]
    for name, second_prompt in (("a", whole), ("b", anew), ("c", [1, 2, 9, 4]), ("d", []), ("e", anew)):
        maker = TraceMaker(name).start("1 + 2?")
        maker.turn(1, calling(call(1, "add", a=1, b=2)), prompt_token_ids=[1], token_ids=[2, 3], logprobs=[-0.5, -1.0])
        maker.messages.append(answer(1, "3"))
        maker.turn(2, saying("#### 3"), prompt_token_ids=second_prompt, token_ids=[5], logprobs=[-0.25])
        maker.end().write(tmp_path / "traces" / "1795600000")
    code, [example], said = exported(capfdbinary, str(tmp_path / "traces"), "--rows")
    assert code == 0
    summary, *examples = said.splitlines()
    assert summary == "1 of 5 rollouts exported; left out: 3 tokenised anew, 1 without token ids."
    assert [line.split(", ")[0] for line in examples] == [
        "  tokenised anew: b: Turn 2 goes on from turn 1",
        "  without token ids: d: Turn 2 has no token ids: have the model server send them (return_token_ids of vLLM).",
    ]
    [row] = example["rows"]
    assert (row["ids"], row["mask"], row["logprobs"]) == ([1, 2, 3, 4, 5], [0, 1, 1, 0, 1], [0, -0.5, -1.0, 0, -0.25])
