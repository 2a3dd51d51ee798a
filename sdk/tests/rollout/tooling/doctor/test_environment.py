"""Python, the SDK, its extras, open files: each check in a process that really lacks what it is about."""

import re
import resource
import site
import sys
from pathlib import Path

import pytest
from support.doctor import assert_names, find, find_elsewhere

from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.tooling.doctor.environment import missing_packages
from osmosis_ai.rollout.tooling.doctor.types import Status


@pytest.fixture
def without(folder: Path) -> "WithoutPackages":
    return WithoutPackages(folder)


class WithoutPackages:
    """This environment but for some packages: a folder of links to all the others."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "site-packages"

    def __call__(self, *modules: str) -> dict[str, str]:
        """The variables of a Python that has no ``modules``; start it with ``-S``."""
        self._folder.mkdir()
        for place in map(Path, site.getsitepackages()):
            for entry in place.iterdir():
                if re.split("[.-]", entry.name)[0] not in modules and entry.suffix != ".pth":
                    (self._folder / entry.name).symlink_to(entry)
        source = Path(__file__).parents[4] / "src"
        return {"PYTHONPATH": f"{self._folder}:{source}"}


def test_python_older_than_the_project_asks_for(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\nrequires-python = ">=3.99"\n')
    assert_names(find("python"), Status.PROBLEM, "3.99", "uv run --python 3.99")


def test_a_project_that_this_python_fits(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\nrequires-python = ">=3.11"\n')
    assert find("python").status is Status.OK


def test_another_python_than_that_of_the_folder(folder: Path) -> None:
    (folder / ".venv").mkdir()
    (folder / ".venv" / "pyvenv.cfg").touch()
    assert_names(find("python"), Status.WARNING, sys.prefix, "uv run")


def test_the_python_of_the_folder(folder: Path) -> None:
    (folder / ".venv").symlink_to(sys.prefix)
    assert find("python").status is Status.OK


@pytest.mark.slow
def test_another_product_under_the_name_of_the_sdk(folder: Path) -> None:
    other = folder / "other" / "osmosis_ai-1.2.3.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: osmosis-ai\nVersion: 1.2.3\n")
    finding = find_elsewhere("sdk", variables={"PYTHONPATH": str(other.parent)})
    assert_names(finding, Status.PROBLEM, "1.2.3", PACKAGE_VERSION, "uninstall")


def test_a_command_of_that_name_from_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = folder / "bin" / "osmosis"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent))
    assert_names(find("sdk"), Status.WARNING, str(command), sys.executable)


@pytest.mark.slow
def test_packages_of_extras_that_are_missing(without: WithoutPackages) -> None:
    variables = without("uvicorn", "fastapi", "litellm", "uvloop")
    finding = find_elsewhere("extras", python=("-S",), variables=variables, model="gpt-4o")
    assert_names(finding, Status.PROBLEM, "fastapi, uvicorn, litellm", "osmosis-ai[server,llm]")


@pytest.mark.slow
def test_the_fast_loop_missing(without: WithoutPackages) -> None:
    finding = find_elsewhere("fast-http", python=("-S",), variables=without("uvloop"))
    assert_names(finding, Status.WARNING, "uvloop", "osmosis-ai[server]")
    assert "httptools" not in finding.message


def test_all_packages_there() -> None:
    assert missing_packages("server") == missing_packages("llm") == set()
    assert find("extras", model="gpt-4o", mcp="tools").status is Status.OK
    assert find("fast-http").status is Status.OK


@pytest.mark.slow
def test_the_missing_mcp_extra_matters_to_who_uses_it(without: WithoutPackages) -> None:
    variables = without("fastmcp")
    assert_names(
        find_elsewhere("extras", python=("-S",), variables=variables, mcp="tools"), Status.PROBLEM, "fastmcp", "[mcp]"
    )
    assert find_elsewhere("extras", python=("-S",), variables=variables).status is Status.OK


@pytest.mark.slow
def test_too_few_open_files() -> None:
    finding = find_elsewhere("open-files", "prlimit", "--nofile=200:200")
    assert_names(finding, Status.WARNING, "200", "328", "ulimit -Hn", "MAX_CONCURRENT_ROLLOUTS=36")


def test_fewer_rollouts_need_fewer_files(monkeypatch: pytest.MonkeyPatch) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_MAX_CONCURRENT_ROLLOUTS", "1")
    assert hard >= 130
    assert find("open-files").status is Status.OK
