import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.planted import PLANTED, a_link, mode_of

from osmosis_ai.rollout.core.files import NotRegularError, make_folder, open_regular, write_whole
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


class TestPrivacy:
    @pytest.mark.parametrize("umask", [0o000, 0o022])
    def test_what_is_made_is_its_owners_alone(self, tmp_path: Path, umask: int) -> None:
        before = os.umask(umask)
        try:
            write_whole(tmp_path / "a" / "b" / "file", ["x"])
        finally:
            os.umask(before)
        assert [mode_of(tmp_path / name) for name in ("a", "a/b", "a/b/file")] == [0o700, 0o700, 0o600]

    def test_what_exists_keeps_its_mode(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a").chmod(0o755)
        (tmp_path / "a" / "file").touch()
        (tmp_path / "a" / "file").chmod(0o664)
        write_whole(tmp_path / "a" / "file", ["x"])
        assert [mode_of(tmp_path / name) for name in ("a", "a/file")] == [0o755, 0o664]

    def test_a_folder_is_not_made_in_the_place_of_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(FileExistsError):
            make_folder(tmp_path / "file")

    def test_a_draft_that_somebody_planted_is_not_written_through(self, tmp_path: Path) -> None:
        (tmp_path / "precious").write_text("untouched")
        (tmp_path / f".file.{os.getpid()}.part").symlink_to("precious")
        write_whole(tmp_path / "file", ["x"])
        assert (tmp_path / "precious").read_text() == "untouched"
        assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("plant", PLANTED)
class TestRegularFilesOnly:
    def test_nothing_else_is_opened(
        self, tmp_path: Path, plant: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        plant(tmp_path / "x")
        for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            with pytest.raises(NotRegularError, match=r"it is not a regular file: '.*/x'$"):
                open_regular(tmp_path / "x", flags)

    def test_nothing_else_is_replaced_but_a_link(
        self, tmp_path: Path, plant: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        plant(tmp_path / "x")
        if (tmp_path / "x").is_symlink():
            write_whole(tmp_path / "x", ["x"])
            assert (tmp_path / "x").read_text() == "x"
            return
        with pytest.raises(CLIError, match=r"^Cannot write .*/x: it is not a regular file\.$"):
            write_whole(tmp_path / "x", ["x"])


def test_a_link_that_a_user_named_is_followed(tmp_path: Path) -> None:
    a_link(tmp_path / "x")
    os.close(open_regular(tmp_path / "x", os.O_RDONLY, follow=True))
