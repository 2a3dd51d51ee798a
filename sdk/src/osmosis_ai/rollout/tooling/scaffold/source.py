"""Where a new project gets this SDK from, as a uv source: no registry has it.

A checkout is named by its path. A wheel or source archive is copied into the project, so that the project can be moved
and shared. What was installed from Git is named by its commit (PEP 610).
"""

import importlib.metadata
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import url2pathname

from osmosis_ai.rollout.core.consts import PACKAGE_FOLDER, package_name
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError

VENDOR = "vendor"
HOW_TO_NAME = (
    "--sdk PATH (a checkout or its sdk folder), --sdk FILE.whl, or --sdk git+https://HOST/REPO#subdirectory=sdk"
)

_ARCHIVES = (".whl", ".tar.gz")


@dataclass(frozen=True, slots=True)
class SdkSource:
    """An entry of ``[tool.uv.sources]``; ``archive`` is a file that belongs into the project's folder ``vendor``."""

    fields: Mapping[str, str | bool]
    archive: Path | None = None

    def toml(self, folder: Path) -> str:
        """The entry's inline table, for a project in ``folder``: a path is relative to it."""
        fields = dict(self.fields)
        if isinstance(path := fields.get("path"), str) and Path(path).is_absolute():
            fields["path"] = Path(os.path.relpath(path, folder.absolute())).as_posix()
        # A JSON string is a TOML basic string; true is true.
        return "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in fields.items()) + " }"

    def __str__(self) -> str:
        return str(self.fields.get("git") or self.fields.get("url") or self.archive or self.fields["path"])


def own_source() -> SdkSource:
    """Where the SDK that runs was installed from.

    Raises:
        CLIError: that is not on record, or no longer there.
    """
    checkout = Path(PACKAGE_FOLDER).parents[1]
    if _is_sdk(checkout):
        return _at(checkout, editable=True)
    try:
        origin = importlib.metadata.distribution(package_name).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        origin = None
    if not origin:
        raise CLIError(f"Where this SDK was installed from is not on record: name it with {HOW_TO_NAME}.")
    return _recorded(json.loads(origin))


def _recorded(origin: Mapping[str, Any]) -> SdkSource:
    """From ``direct_url.json`` (PEP 610)."""
    url = str(origin["url"])
    subdirectory = {"subdirectory": str(origin["subdirectory"])} if origin.get("subdirectory") else {}
    if "vcs_info" in origin:
        return SdkSource({"git": url, "rev": str(origin["vcs_info"]["commit_id"]), **subdirectory})
    if not url.startswith("file:"):
        return SdkSource({"url": url, **subdirectory})
    path = Path(url2pathname(urlsplit(url).path))
    if not path.exists():
        raise CLIError(f"This SDK was installed from {path}, which is gone: name it with {HOW_TO_NAME}.")
    return _at(path, editable=bool(origin.get("dir_info", {}).get("editable")))


def named_source(text: str) -> SdkSource:
    """What the user names: a folder, a wheel or source archive, or ``git+URL[@REVISION][#subdirectory=FOLDER]``.

    Raises:
        CLIError: it is none of these.
    """
    if text.startswith("git+"):
        return _git(text.removeprefix("git+"))
    if text.startswith(("http://", "https://")):
        return SdkSource({"url": text})
    return _at(Path(text), editable=True)


def _git(text: str) -> SdkSource:
    parts = urlsplit(text)
    path, at, revision = parts.path.rpartition("@")
    options = parse_qs(parts.fragment)
    if not (parts.scheme and (parts.netloc or parts.scheme == "file") and (path if at else revision).strip("/")):
        raise UsageError(f"git+{text} is no URL such as git+https://HOST/REPO@REVISION#subdirectory=sdk.")
    fields = {"git": parts._replace(path=path if at else parts.path, fragment="").geturl()}
    if at:
        fields["rev"] = revision
    if folder := options.get("subdirectory"):
        fields["subdirectory"] = folder[0]
    return SdkSource(fields)


def _at(path: Path, *, editable: bool) -> SdkSource:
    path = path.absolute()
    if path.name.endswith(_ARCHIVES) and path.is_file():
        if not path.name.startswith("osmosis_ai-0.2."):
            raise UsageError(f"{path} is no {package_name} of the 0.2 line: name it with {HOW_TO_NAME}.")
        return SdkSource({"path": f"{VENDOR}/{path.name}"}, archive=path)
    for folder in (path, path / "sdk"):
        if _is_sdk(folder):
            return SdkSource({"path": str(folder), **({"editable": True} if editable else {})})
    raise UsageError(f"There is no {package_name} SDK at {path}: name it with {HOW_TO_NAME}.")


def _is_sdk(folder: Path) -> bool:
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(project.get("project", {}).get("name") == package_name)
