"""Builds the pages and the API reference as a site: ``uv run python -m docs.site``, into ``build/site``.

Zensical makes the site, mkdocstrings reads the docstrings, Typer describes the commands. What is here lays the pages of
the whole tree out as they lie in it, so that one link leads to the same place on a code host and in the site.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_PAGES = frozenset({"src", "build", "dist", "runs", "rollout_logs"})
"""What lies below folders of these names is written for others, or by a program."""

_COMMANDS = "<!-- commands -->"
_FENCE = re.compile(r"^(\s*```\w+) .*$", re.MULTILINE)
_FOLDER = re.compile(r"\]\(([^):\s]+)/\)")
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_LINK = re.compile(r"\]\(([^)#:\s]+)")


def build(folder: Path) -> Path:
    """Build the site below ``folder``, which is emptied first; the folder that has its ``index.html`` is returned.

    Raises:
        RuntimeError: a link leads nowhere, or a docstring and its signature differ; the message is what was said.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for file in sources():
        target = folder / "pages" / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".md":
            target.write_text(_prepared(file.read_text(encoding="utf-8")), encoding="utf-8")
        else:
            shutil.copyfile(file, target)
    shutil.copyfile(ROOT / "docs/zensical.toml", folder / "zensical.toml")
    done = _run(["zensical", "build", "--strict"], folder)
    if done.returncode or "griffe: " in done.stdout:  # of docstrings it only warns
        raise RuntimeError(_COLORS.sub("", done.stdout).partition("Traceback")[0])
    return folder / "site"


def pages() -> Iterator[Path]:
    """Every Markdown page of the tree."""
    for file in sorted(ROOT.rglob("*.md")):
        folders = file.relative_to(ROOT).parts[:-1]
        if NOT_PAGES.isdisjoint(folders) and not any(folder.startswith(".") for folder in folders):
            yield file


def sources() -> Iterator[Path]:
    """Every page, and the files that it links to."""
    for page in pages():
        yield page
        for link in _LINK.findall(page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            if target.is_file() and target.is_relative_to(ROOT) and target.suffix != ".md":
                yield target


def _prepared(page: str) -> str:
    page = _FENCE.sub(r"\1", page)  # the rest says how the tests try it, and the parser takes such a fence for text
    page = _FOLDER.sub(r"](\1/README.md)", page)
    return page.replace(_COMMANDS, _commands()) if _COMMANDS in page else page


def _commands() -> str:
    done = _run(["typer", "osmosis_ai.cli.app", "utils", "docs", "--name", "osmosis"], ROOT)
    if done.returncode:
        raise RuntimeError(done.stdout)
    return done.stdout.partition("\n")[2]  # the page has its own title


def _run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - two modules that are named here
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def main() -> int:
    """Build it, or say why not."""
    parser = argparse.ArgumentParser(prog="python -m docs.site", description="Build the documentation as a site.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build", help="emptied first [default: build]")
    try:
        site = build(parser.parse_args().folder)
    except RuntimeError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the answer itself
        return 1
    print(site / "index.html")  # noqa: T201 - the answer itself
    return 0


if __name__ == "__main__":
    sys.exit(main())
