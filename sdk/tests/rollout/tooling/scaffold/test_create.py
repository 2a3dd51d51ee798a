"""A new project: what is written, what is refused, and that it passes its own tests."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.processes import own_environment

from osmosis_ai.rollout.core.loading import load_agent_loop
from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.tooling.scaffold import create
from osmosis_ai.rollout.tooling.scaffold.create import AGENT_NAME_LINE, create_project
from osmosis_ai.rollout.tooling.scaffold.source import SdkSource, own_source

EXAMPLE = Path(__file__).parents[5]
COPIED = (".dockerignore", "deploy/Containerfile", "rewards.py", "test_data.jsonl", "tools.py")
SDK = SdkSource({"path": "/somewhere/sdk", "editable": True})


def contents(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): file.read_text(encoding="utf-8")
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_it_is_the_example_under_another_name(tmp_path: Path) -> None:
    project = create_project(tmp_path / "My Agent!", SDK)
    written = contents(project.folder)
    assert project.name == "my-agent"
    assert project.files == tuple(written)
    for name in COPIED:
        assert written[name] == (EXAMPLE / name).read_text(encoding="utf-8")
    example = (EXAMPLE / "server.py").read_text(encoding="utf-8")
    assert example.count(AGENT_NAME_LINE) == 1
    assert written["server.py"] == example.replace("calculator", "my-agent")
    assert set(written) == {
        *(".gitignore", "README.md", "policy.py", "pyproject.toml", "server.py", "tests/test_agent.py"),
        *COPIED,
    }
    assert not any("@NAME@" in text or "@SDK@" in text for text in written.values())


def test_its_project_file_names_the_sdk_and_what_it_needs(tmp_path: Path) -> None:
    create_project(tmp_path / "agent", SDK, "Other.Name")
    project = tomllib.loads((tmp_path / "agent" / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["name"] == "Other.Name"
    assert project["project"]["dependencies"] == ["osmosis-ai[server]>=0.2.17,<0.3"]
    source = project["tool"]["uv"]["sources"]["osmosis-ai"]
    assert not Path(source["path"]).is_absolute()
    assert (tmp_path / "agent" / source["path"]).resolve() == Path(str(SDK.fields["path"]))
    assert source["editable"] is True


@pytest.mark.slow
def test_it_passes_its_own_tests(tmp_path: Path) -> None:
    create_project(tmp_path / "agent", own_source())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:langsmith_plugin"],
        cwd=tmp_path / "agent",
        env=own_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_its_agent_has_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_project(tmp_path / "agent", SDK, "weather")
    monkeypatch.chdir(tmp_path / "agent")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "agent"), *sys.path])
    for name in ("server", "tools", "rewards"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    try:
        assert load_agent_loop("server:agent_loop").name == "weather"
    finally:
        for name in ("server", "tools", "rewards"):
            sys.modules.pop(name, None)


def test_an_empty_folder_will_do_and_one_with_a_fresh_repository(tmp_path: Path) -> None:
    for name in ("empty", "repository"):
        (tmp_path / name / ".git" if name == "repository" else tmp_path / name).mkdir(parents=True)
        assert create_project(tmp_path / name, SDK).name == name


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CLIError, match="is not empty"):
        create_project(tmp_path, SDK)
    assert contents(tmp_path) == {"notes.txt": "mine"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CLIError, match="Not a directory"):
            create_project(folder, SDK)


def test_a_folder_that_cannot_be_made() -> None:
    with pytest.raises(CLIError, match="cannot be written"):
        create_project(Path("/proc/agent"), SDK)


@pytest.mark.parametrize("name", ["", "a b", "-a", 'a"]\nx = "', "ä", "osmosis_ai", "PyTest"])
def test_a_name_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    with pytest.raises(CLIError, match="--name"):
        create_project(tmp_path / "agent", SDK, name)
    assert not (tmp_path / "agent").exists()


def test_a_folder_whose_name_gives_none_needs_one(tmp_path: Path) -> None:
    with pytest.raises(CLIError, match="--name"):
        create_project(tmp_path / "...", SDK)
    assert create_project(tmp_path / "...", SDK, "agent").name == "agent"


def test_the_folder_may_be_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert create_project(Path(), SDK).name == "here"
    assert os.path.exists("server.py")  # noqa: PTH110 - where it is in this directory


@pytest.fixture
def own_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the project's files, as a wheel has it, to be damaged."""
    folder = tmp_path / "installed" / "project"
    shutil.copytree(Path(create.__file__).parent / "project", folder)
    for name in create.EXAMPLE_FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(EXAMPLE / name, folder / name)
    monkeypatch.setattr(create, "files", lambda package: tmp_path / "installed")
    return folder


def test_what_an_installed_sdk_has_is_enough(own_copy: Path, tmp_path: Path) -> None:
    project = create_project(tmp_path / "agent", SDK, "weather")
    assert 'name = "weather"' in contents(project.folder)["server.py"]


@pytest.mark.parametrize("name", [*create.EXAMPLE_FILES[1:], *create.TEMPLATES])
def test_a_file_that_is_missing_is_named_and_nothing_is_written(own_copy: Path, tmp_path: Path, name: str) -> None:
    (own_copy / name).unlink()
    with pytest.raises(CLIError, match=f"^This SDK has no .*{name}: install it anew, or use a whole checkout"):
        create_project(tmp_path / "agent", SDK)
    assert not (tmp_path / "agent").exists()


@pytest.mark.parametrize(
    ("name", "marker"),
    [
        ("server.py", AGENT_NAME_LINE.strip()),
        ("README.md", "@NAME@"),
        ("pyproject.toml.template", "@NAME@"),
        ("pyproject.toml.template", "@SDK@"),
    ],
)
def test_a_template_without_its_marker_is_an_error(own_copy: Path, tmp_path: Path, name: str, marker: str) -> None:
    (own_copy / name).write_text((own_copy / name).read_text().replace(marker, "something else"))
    with pytest.raises(CLIError, match=f"^The {create.TEMPLATES.get(name, name)} of this SDK has no {marker}"):
        create_project(tmp_path / "agent", SDK)
    assert not (tmp_path / "agent").exists()


def test_what_a_checkout_without_links_left_in_their_place_is_no_example(own_copy: Path, tmp_path: Path) -> None:
    (own_copy / "server.py").write_text("../../../../../../../server.py")
    with pytest.raises(CLIError, match="has no name = "):
        create_project(tmp_path / "agent", SDK)


def test_the_build_takes_the_same_files() -> None:
    assert f"EXAMPLE_FILES = {json.dumps(create.EXAMPLE_FILES)}".replace("[", "(").replace("]", ")") in (
        EXAMPLE / "sdk" / "hatch_build.py"
    ).read_text(encoding="utf-8")


def test_no_file_of_the_package_is_a_link() -> None:
    assert not [file for file in (EXAMPLE / "sdk" / "src").rglob("*") if file.is_symlink()]


@pytest.mark.slow
def test_the_sql_agent_is_a_new_project_with_at_most_120_lines_of_ones_own(tmp_path: Path) -> None:
    project = create_project(tmp_path / "sql", own_source()).folder
    example = EXAMPLE / "examples" / "sql"
    written = [*sorted(example.glob("*.py")), *sorted((example / "tests").glob("*.py"))]
    lines = [line for file in written for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) <= 120
    (project / "tests" / "test_agent.py").unlink()
    for file in [*written, example / "company.sql", example / "questions.jsonl"]:
        text = file.read_text(encoding="utf-8").replace("from examples.sql.", "from ")
        (project / file.relative_to(example)).write_text(text, encoding="utf-8")
    for command in (
        ("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:langsmith_plugin"),
        ("osmosis_ai", "trainer", "-m", "server:agent_loop", "-d", "questions.jsonl", "--policy", "policy:reply"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=project,
            env=own_environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "Mean reward: 0.97 (over 3 rollouts)" in done.stdout
