"""Where a new project gets the SDK from, by what the user names or by how this one was installed."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.tooling.scaffold.create import create_project
from osmosis_ai.rollout.tooling.scaffold.source import SdkSource, _recorded, named_source, own_source

SDK = Path(__file__).parents[4]
WHEEL = "osmosis_ai-0.2.17+workspace-py3-none-any.whl"


def test_a_checkout_is_named_by_its_path() -> None:
    assert own_source() == SdkSource({"path": str(SDK), "editable": True})


@pytest.mark.parametrize("place", [SDK, SDK.parent])
def test_the_sdk_or_the_project_around_it_may_be_named(place: Path) -> None:
    assert named_source(str(place)) == own_source()


def test_a_relative_path_is_made_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SDK.parent)
    assert named_source("sdk") == own_source()


def test_a_wheel_goes_into_the_project(tmp_path: Path) -> None:
    (tmp_path / WHEEL).write_bytes(b"a wheel")
    source = named_source(str(tmp_path / WHEEL))
    assert source.fields == {"path": f"vendor/{WHEEL}"}
    project = create_project(tmp_path / "agent", source)
    assert f"vendor/{WHEEL}" in project.files
    assert (tmp_path / "agent" / "vendor" / WHEEL).read_bytes() == b"a wheel"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("git+https://host/repo", {"git": "https://host/repo"}),
        (
            "git+https://host/a/repo.git@v1#subdirectory=sdk",
            {"git": "https://host/a/repo.git", "rev": "v1", "subdirectory": "sdk"},
        ),
        ("git+ssh://git@host/repo", {"git": "ssh://git@host/repo"}),
        ("git+ssh://git@host:22/repo@ab12", {"git": "ssh://git@host:22/repo", "rev": "ab12"}),
        ("git+file:///srv/repo#subdirectory=sdk", {"git": "file:///srv/repo", "subdirectory": "sdk"}),
        (f"https://host/{WHEEL}", {"url": f"https://host/{WHEEL}"}),
    ],
)
def test_git_and_the_web(text: str, fields: dict[str, str]) -> None:
    assert named_source(text) == SdkSource(fields)


@pytest.mark.parametrize("text", ["git+", "git+nonsense", "git+https://host", "/nowhere", "", "/nowhere/a.whl"])
def test_what_is_none_of_these(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CLIError, match="subdirectory=sdk"):
        named_source(text)


def test_the_product_that_now_has_the_name_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "osmosis_ai-1.0.0-py3-none-any.whl"
    other.touch()
    with pytest.raises(CLIError, match=r"0\.2 line"):
        named_source(str(other))


@pytest.mark.parametrize(
    ("origin", "fields"),
    [
        (
            {"url": "https://host/repo", "vcs_info": {"vcs": "git", "commit_id": "ab12"}, "subdirectory": "sdk"},
            {"git": "https://host/repo", "rev": "ab12", "subdirectory": "sdk"},
        ),
        ({"url": f"https://host/{WHEEL}", "archive_info": {}}, {"url": f"https://host/{WHEEL}"}),
        ({"url": SDK.as_uri(), "dir_info": {}}, {"path": str(SDK)}),
        ({"url": SDK.as_uri(), "dir_info": {"editable": True}}, {"path": str(SDK), "editable": True}),
    ],
)
def test_what_an_installer_has_noted(origin: dict[str, Any], fields: dict[str, str]) -> None:
    assert _recorded(json.loads(json.dumps(origin))) == SdkSource(fields)


def test_what_was_installed_from_is_gone(tmp_path: Path) -> None:
    with pytest.raises(CLIError, match="which is gone: name it with --sdk"):
        _recorded({"url": (tmp_path / WHEEL).as_uri(), "archive_info": {}})


@pytest.mark.parametrize("path", ['/a "quoted" path', "/back\\slash", "/ünïcode", "/new\nline"])
def test_any_path_is_valid_toml(path: str) -> None:
    table = tomllib.loads(f"sdk = {SdkSource({'path': path, 'editable': True}).toml(Path('/'))}")
    assert table == {"sdk": {"path": path.removeprefix("/"), "editable": True}}
