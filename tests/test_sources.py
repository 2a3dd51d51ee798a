"""Code cites what a reader can open: every page that a Python file names is in the tree, and has the section."""

import re
from pathlib import Path

import pytest

from tests.pages import ROOT, pages

FOLDERS = ("sdk", "conformance", "docs", "tests", "bench", "examples")
FILES = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py")) if file != Path(__file__)]
CITED = re.compile(r"``([\w./-]+\.md)``(?:, (?:sections? )?(\d[\d.]*(?:(?:, | and | to )\d[\d.]*)*))?")
NEVER_THERE = re.compile(r"(?<![\w/.(-])(core|server|test-and-eval)\.md\b|\b[Ww]eakness(es)? \d|\bSpec: ")
HEADING = re.compile(r"^#+ (\d[\d.]*?)\.? ", re.MULTILINE)


def citations(text: str) -> list[tuple[str, str]]:
    return CITED.findall(re.sub(r"\s+", " ", text))


def problem_of(name: str, sections: str = "") -> str | None:
    page = pages().get(name) or pages().get(f"docs/{name}")
    if page is None:
        return f"{name} is not in the tree"
    headings = set(HEADING.findall(page.path.read_text(encoding="utf-8")))
    missing = set(re.findall(r"\d+(?:\.\d+)*", sections)) - headings
    return f"{name} has no section {', '.join(sorted(missing))}" if missing else None


def test_every_page_that_code_names_is_in_the_tree_and_has_the_section() -> None:
    found = [(file.name, *cited) for file in FILES for cited in citations(file.read_text(encoding="utf-8"))]

    assert len(found) > 10
    assert [(file, problem) for file, *cited in found if (problem := problem_of(*cited))] == []


@pytest.mark.parametrize("text", ["``core.md``", "See ``docs/protocol.md``, section 99.", "``protocol.md``, 1 to 77"])
def test_a_source_that_is_not_there_is_seen(text: str) -> None:
    assert [problem for cited in citations(text) if (problem := problem_of(*cited))]


def test_nothing_cites_pages_that_were_never_in_the_tree() -> None:
    files = [*FILES, *(page.path for page in pages().values())]

    assert [file for file in files if NEVER_THERE.search(file.read_text(encoding="utf-8"))] == []
