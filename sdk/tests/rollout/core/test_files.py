from collections.abc import Iterator
from pathlib import Path

import pytest

from osmosis_ai.rollout.core.files import write_whole
from osmosis_ai.rollout.core.user_errors import CLIError


def test_text_and_bytes_are_written_and_the_folder_made(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "file", ["ä", b"\xff", "\ud800"])
    assert (tmp_path / "new" / "file").read_bytes() == "ä".encode() + b"\xff\\ud800"


def test_what_fails_on_the_way_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def pieces() -> Iterator[str]:
        yield "half"
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        write_whole(path, pieces())
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CLIError, match=r"^Cannot write .*file/report: File exists\.$"):
        write_whole(tmp_path / "file" / "report", ["x"])
