"""Writing a new project: the example with another name, tests of its own, and what uv needs to run it."""

import re
import shutil
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from osmosis_ai.rollout.core.user_errors import CLIError, UsageError
from osmosis_ai.rollout.tooling.scaffold.source import VENDOR, SdkSource

AGENT_NAME_LINE = '    name = "calculator"\n'
"""The line of the example's ``server.py`` that the new name goes into."""

EXAMPLE_FILES = ("server.py", "tools.py", "rewards.py", "test_data.jsonl", "deploy/Containerfile", ".dockerignore")
TEMPLATES = {
    "README.md": "README.md",
    "gitignore": ".gitignore",
    "pyproject.toml.template": "pyproject.toml",
    "policy.py": "policy.py",
    "tests/test_agent.py": "tests/test_agent.py",
}
"""The other files of a project, by where they lie in ``project/``."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
# A project cannot depend on itself.
_TAKEN_NAMES = frozenset({"osmosis-ai", "pytest", "pytest-asyncio"})
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
        CLIError: ``folder`` is not empty or cannot be written, the name cannot be used, or this SDK lacks a file
            of the project or the place for a name in it.
    """
    name = _checked_name(name if name is not None else _name_of(folder))
    _require_empty(folder)
    texts = _texts(folder, name, sdk)
    try:
        for relative, text in texts.items():
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            # Never over something that is there, nor through a link.
            with (folder / relative).open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
        if sdk.archive is not None:
            (folder / VENDOR).mkdir()
            shutil.copyfile(sdk.archive, folder / VENDOR / sdk.archive.name)
    except OSError as error:
        raise CLIError(f"{folder} cannot be written: {error.strerror or error} ({error.filename}).") from error
    vendored = [] if sdk.archive is None else [f"{VENDOR}/{sdk.archive.name}"]
    return Project(folder, name, tuple(sorted([*texts, *vendored])))


def _name_of(folder: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", folder.absolute().name.lower()).strip("-")


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a project: give --name, of letters, digits, '.', '_' and '-'.")
    if re.sub(r"[._-]+", "-", name).lower() in _TAKEN_NAMES:
        raise UsageError(f"{name!r} is a package that the project needs: give it another --name.")
    return name


def _require_empty(folder: Path) -> None:
    try:
        entries = {entry.name for entry in folder.iterdir()} - _DISREGARDED
    except FileNotFoundError:
        return
    except OSError as error:
        raise CLIError(f"{folder} cannot be used: {error.strerror}; name a new folder.") from error
    if entries:
        raise UsageError(f"{folder} is not empty: name a new folder, or an empty one.")


def _texts(folder: Path, name: str, sdk: SdkSource) -> dict[str, str]:
    """Every file of the project; nothing is written before all of them are there."""
    project = files("osmosis_ai.rollout.tooling.scaffold") / "project"
    texts = {path: _read(project / template) for template, path in TEMPLATES.items()}
    # Where the package has no example it is the one of a checkout, which lies beside the SDK.
    example: Traversable = project if (project / EXAMPLE_FILES[0]).is_file() else Path(__file__).resolve().parents[6]
    texts |= {path: _read(example / path) for path in EXAMPLE_FILES}
    for path, marker, value in (
        ("README.md", "@NAME@", name),
        ("pyproject.toml", "@NAME@", name),
        ("pyproject.toml", "@SDK@", sdk.toml(folder)),
        ("server.py", AGENT_NAME_LINE, f'    name = "{name}"\n'),
    ):
        if marker not in texts[path]:
            raise CLIError(f"The {path} of this SDK has no {marker.strip()}: install it anew.")
        texts[path] = texts[path].replace(marker, value)
    return texts


def _read(file: Traversable) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise CLIError(f"This SDK has no {file}: install it anew, or use a whole checkout.") from None
