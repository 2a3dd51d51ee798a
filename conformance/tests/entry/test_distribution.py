"""The kit stands alone: nothing of the SDK, little to install, and it works from its wheel."""

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest
from servers.serving import serving_in_a_thread
from servers.small import SmallServer

from rollout_conformance import all_checks

MEMBER = Path(__file__).parents[2]
DEADLINE_SECONDS = 150


def output_of(*command: str, cwd: Path | None = None) -> str:
    outside = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(
        command, cwd=cwd, env=outside, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_no_module_of_it_needs_the_sdk(tmp_path: Path) -> None:
    program = (
        "import importlib, pkgutil, sys; sys.modules['osmosis_ai'] = None; import rollout_conformance as kit; "
        "names = [found.name for found in pkgutil.walk_packages(kit.__path__, kit.__name__ + '.')]; "
        "[importlib.import_module(name) for name in names if not name.endswith('__main__')]; print(len(names))"
    )
    assert int(output_of(sys.executable, "-c", program, cwd=tmp_path)) > 30


def test_its_options_come_without_an_http_client(tmp_path: Path) -> None:
    program = (
        "import sys, rollout_conformance.command; "
        "print([name for name in ('httpx', 'h11', 'rich.progress', 'asyncio') if name in sys.modules])"
    )
    assert output_of(sys.executable, "-c", program, cwd=tmp_path).strip() == "[]"


@pytest.mark.slow
def test_it_works_from_its_wheel_without_the_sdk(tmp_path: Path) -> None:
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("there is no uv on the path")
    output_of(uv, "build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", str(tmp_path), str(MEMBER))
    output_of(uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv"))
    [wheel] = tmp_path.glob("*.whl")
    programs = tmp_path / "venv" / "bin"
    install = ("pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(programs / "python"))
    output_of(uv, *install, str(wheel))
    # What it depends on is this environment's; the workspace's own packages do not come along by such a line.
    [packages] = tmp_path.glob("venv/lib/python3.*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    with serving_in_a_thread(SmallServer()) as url:
        shown = output_of(str(programs / "rollout-conformance"), "--server", url, "--only", "init", cwd=tmp_path)
    of_init = sum(check.id.startswith("init.") for check in all_checks())
    assert f"conforms: {of_init} passed, 0 failed" in shown
    absent = "import importlib.util as util; print(util.find_spec('osmosis_ai'))"
    assert output_of(str(programs / "python"), "-c", absent, cwd=tmp_path).strip() == "None"
