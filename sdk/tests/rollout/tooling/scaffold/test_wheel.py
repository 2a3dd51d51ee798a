"""The SDK as a wheel: built by uv from `sdk/` alone, installed into an environment of its own, and used from there."""

import os
import shutil
import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.processes import own_environment

pytestmark = pytest.mark.slow

SDK = Path(__file__).parents[4]
DATA = "osmosis_ai/rollout/tooling/scaffold/project"
EXAMPLE_FILES = ("server.py", "tools.py", "rewards.py", "test_data.jsonl", "deploy/Containerfile", ".dockerignore")
BUILD_SECONDS = 55


def uv() -> str:
    program = os.environ.get("UV") or shutil.which("uv")
    if program is None:
        pytest.skip("there is no uv on the path")
    return program


def run(*command: str, cwd: Path | None = None) -> str:
    environment = {
        name: value for name, value in own_environment().items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")
    }
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(uv(), "build", "--quiet", "--python", sys.executable, "--out-dir", str(folder), str(SDK))
    return folder


@pytest.fixture(scope="module")
def environment(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an environment with the wheel; what it depends on is this one's."""
    folder = tmp_path_factory.mktemp("venv")
    run(uv(), "venv", "--quiet", "--python", sys.executable, str(folder), "--clear")
    [wheel] = distributions.glob("*.whl")
    python = folder / "bin" / "python"
    run(uv(), "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(python), str(wheel))
    [packages] = folder.glob("lib/python3.*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return folder / "bin"


def test_wheel_and_archive_have_the_example_itself(distributions: Path) -> None:
    [wheel], [archive] = distributions.glob("*.whl"), distributions.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as opened, tarfile.open(archive) as unpacked:
        for name in EXAMPLE_FILES:
            example = (SDK.parent / name).read_bytes()
            assert opened.read(f"{DATA}/{name}") == example
            [member] = [each for each in unpacked.getmembers() if each.name.endswith(f"/src/{DATA}/{name}")]
            assert member.isfile()
            extracted = unpacked.extractfile(member)
            assert extracted is not None
            assert extracted.read() == example


def test_a_wheel_built_from_the_checkout_itself_has_the_example_too(tmp_path: Path) -> None:
    run(uv(), "build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", str(tmp_path), str(SDK))
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        for name in EXAMPLE_FILES:
            assert opened.read(f"{DATA}/{name}") == (SDK.parent / name).read_bytes()


def test_a_project_made_by_the_wheel_has_it_and_passes_its_tests(environment: Path, tmp_path: Path) -> None:
    where = run(str(environment / "python"), "-c", "import osmosis_ai; print(osmosis_ai.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(environment.parent)

    said = run(str(environment / "osmosis"), "init", "my-agent", cwd=tmp_path)
    assert "cd my-agent" in said
    project = tmp_path / "my-agent"
    [wheel] = project.glob("vendor/osmosis_ai-0.2.*.whl")
    assert f'osmosis-ai = {{ path = "vendor/{wheel.name}" }}' in (project / "pyproject.toml").read_text()
    run(str(environment / "python"), "-m", "pytest", "-q", "-p", "no:xdist", cwd=project)
