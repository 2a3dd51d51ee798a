"""Writing a new project: the example with another name, tests of its own, and what uv needs to run it."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from osmosis_ai.rollout.tooling.scaffold.errors import ScaffoldError
from osmosis_ai.rollout.tooling.scaffold.source import VENDOR, SdkSource

AGENT_NAME_LINE = '    name = "calculator"\n'
"""The line of the example's ``server.py`` that the new name goes into."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
# A project cannot depend on itself.
_TAKEN_NAMES = frozenset({"osmosis-ai", "pytest", "pytest-asyncio"})
_RENAMED = {"gitignore": ".gitignore", "pyproject.toml.template": "pyproject.toml"}
# A folder that holds only these is as good as empty.
_DISREGARDED = frozenset({".git", ".DS_Store"})


@dataclass(frozen=True, slots=True)
class Project:
    """A project as it was written."""

    folder: Path
    name: str
    files: tuple[str, ...]
    """Relative to ``folder``, sorted."""


def create_project(folder: Path, sdk: SdkSource, name: str | None = None) -> Project:
    """Write a new project into ``folder``, which is made if it is not there.

    Args:
        sdk: where the project gets the SDK from.
        name: of the project and its agent; ``None`` takes the folder's, in small letters and hyphens.

    Raises:
        ScaffoldError: ``folder`` is not empty or cannot be written, or the name cannot be used.
    """
    name = _checked_name(name if name is not None else _name_of(folder))
    _require_empty(folder)
    values = {"@NAME@": name, "@SDK@": sdk.toml()}
    written = []
    try:
        for relative, text in _templates():
            for placeholder, value in values.items():
                text = text.replace(placeholder, value)
            if relative == "server.py":
                text = text.replace(AGENT_NAME_LINE, f'    name = "{name}"\n')
            written.append(_write(folder, relative, text))
        if sdk.archive is not None:
            (folder / VENDOR).mkdir()
            shutil.copyfile(sdk.archive, folder / VENDOR / sdk.archive.name)
            written.append(f"{VENDOR}/{sdk.archive.name}")
    except OSError as error:
        raise ScaffoldError(f"{folder} cannot be written: {error.strerror or error} ({error.filename}).") from error
    return Project(folder, name, tuple(sorted(written)))


def _name_of(folder: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", folder.absolute().name.lower()).strip("-")


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ScaffoldError(f"{name!r} cannot name a project: give --name, of letters, digits, '.', '_' and '-'.")
    if re.sub(r"[._-]+", "-", name).lower() in _TAKEN_NAMES:
        raise ScaffoldError(f"{name!r} is a package that the project needs: give it another --name.")
    return name


def _require_empty(folder: Path) -> None:
    try:
        entries = {entry.name for entry in folder.iterdir()} - _DISREGARDED
    except FileNotFoundError:
        return
    except OSError as error:
        raise ScaffoldError(f"{folder} cannot be used: {error.strerror}; name a new folder.") from error
    if entries:
        raise ScaffoldError(f"{folder} is not empty: name a new folder, or an empty one.")


def _templates() -> Iterator[tuple[str, str]]:
    """Path and text of every file, as they lie in the package."""

    def walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
        for entry in folder.iterdir():
            if entry.is_dir():
                if entry.name != "__pycache__":
                    yield from walk(entry, f"{prefix}{entry.name}/")
            else:
                yield prefix + _RENAMED.get(entry.name, entry.name), entry.read_text(encoding="utf-8")

    yield from walk(files("osmosis_ai.rollout.tooling.scaffold") / "project", "")


def _write(folder: Path, relative: str, text: str) -> str:
    file = folder / relative
    file.parent.mkdir(parents=True, exist_ok=True)
    # Never over something that is there, nor through a link.
    with os.fdopen(
        os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "w", encoding="utf-8", newline="\n"
    ) as out:
        out.write(text)
    return relative
