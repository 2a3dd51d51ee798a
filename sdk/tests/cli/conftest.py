import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from support.adder_project import adder_project
from support.agent_files import write_agent

from osmosis_ai.rollout.core.settings import reset_settings

__all__ = ["adder_project"]

WriteModule = Callable[[str, str], None]


@pytest.fixture
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty one, with nobody's settings; modules imported from it are forgotten."""
    for name in list(os.environ):
        if name.upper().startswith("OSMOSIS_"):
            monkeypatch.delenv(name)
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    reset_settings()
    yield tmp_path
    reset_settings()
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def write_module(working_directory: Path) -> WriteModule:
    """Writes a Python file into the working directory."""

    def write(file: str, source: str) -> None:
        (working_directory / file).write_text(dedent(source).strip() + "\n")

    return write


@pytest.fixture
def user_agent(working_directory: Path) -> str:
    """The ``module:attribute`` of a valid agent loop in the working directory."""
    write_agent(working_directory)
    return "user_agent:agent_loop"
