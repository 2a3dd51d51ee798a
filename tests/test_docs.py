"""Every page: links lead somewhere, commands work when pasted, flags exist, Python compiles.

A block of shell says in its info string how it is tried: ``bash`` is run, ``bash serve`` is a server that must answer
and end well, ``bash with-server`` is run beside a server, ``bash doctor`` may find problems of this machine (exit code
1), ``bash new-project`` (in the README alone) makes a project elsewhere, ``bash not-run: REASON`` is not run. The
blocks of a page are run in their order, on one journal, as a reader would. Those of the README are run by
``test_readme``.
"""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ROOT, commands, flags, free_port, run, serving
from tests.exports import exported_names
from tests.pages import SHELLS, Block, Page, pages

# By pages, not by what is in them: every worker of the suite would parse them all.
PAGES = pages()
each_page = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
RUN_ELSEWHERE = ("README.md", "sdk/src/")  # what is below sdk/src is for the projects of others
SERVER = "uv run osmosis serve -m server:agent_loop --local"

HOW = re.compile(r"bash( serve| with-server| doctor| new-project| not-run: .{10,})?")


# --- links


@each_page
def test_every_link_leads_somewhere(page: Page) -> None:
    assert [link for link in page.links if problem_of(page, link)] == []


def problem_of(page: Page, link: str) -> str | None:
    if re.match(r"[a-z][a-z0-9+.-]*:", link):
        return None
    path, _, fragment = link.partition("#")
    target = (page.path.parent / path).resolve() if path else page.path
    if not target.is_relative_to(ROOT) or not target.exists():
        return "no such file"
    if fragment and target.suffix == ".md" and fragment not in PAGES[target.relative_to(ROOT).as_posix()].anchors:
        return "no such heading"
    return None


def test_the_index_lists_every_page_of_the_documentation() -> None:
    index = PAGES["docs/README.md"]
    linked = {(index.path.parent / link.partition("#")[0]).resolve() for link in index.links}

    expected = {page.path for name, page in PAGES.items() if re.fullmatch(r"docs/[\w-]+\.md|docs/api/README\.md", name)}
    assert expected - linked - {index.path} == set()
    assert "docs/README.md" in PAGES["README.md"].links


def test_the_page_of_the_sdk_lists_every_extra() -> None:
    project = tomllib.loads((ROOT / "sdk/pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = (ROOT / "sdk/README.md").read_text(encoding="utf-8").partition("Extras: ")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"`([a-z]+)` \(", listed)) == sorted(project["optional-dependencies"])


def test_every_file_that_the_architecture_names_exists() -> None:
    named = {span for span in PAGES["docs/architecture.md"].code_spans if re.fullmatch(r"[\w./-]+(\.py|/)", span)}
    roots = (ROOT, ROOT / "sdk/src/osmosis_ai/rollout")

    assert len(named) > 30
    assert {name for name in named if not any((root / name).exists() for root in roots)} == set()


def test_every_name_that_the_architecture_places_in_a_file_is_there() -> None:
    text = re.sub(r"\s+", " ", PAGES["docs/architecture.md"].path.read_text(encoding="utf-8"))
    placed = re.findall(r"(?:`(\w+)`, )?`(\w+)` in `(\w[\w/]*\.py)`", text)

    assert len(placed) > 6
    for *names, file in placed:
        source = (ROOT / "sdk/src/osmosis_ai/rollout" / file).read_text(encoding="utf-8")
        assert [name for name in names if name not in source] == [], file


def test_every_test_that_a_page_names_is_there() -> None:
    named = {span for page in PAGES.values() for span in page.code_spans if re.fullmatch(r"test_\w+", span)}
    files = [file for folder in ("tests", "sdk/tests") for file in (ROOT / folder).rglob("test_*.py")]
    there = {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))}

    assert named - there - {file.stem for file in files} == set()


def test_each_failure_of_many_machines_has_a_test() -> None:
    table = PAGES["docs/many-machines.md"].path.read_text(encoding="utf-8").partition("| failure |")[2]
    rows = table.partition("\n\n")[0].splitlines()[2:]

    assert len(rows) > 10
    assert [row for row in rows if "`test_" not in row.rstrip("| ").rpartition("|")[2]] == []


def test_the_reference_lists_exactly_what_is_exported() -> None:
    text = "\n".join(page.path.read_text("utf-8") for name, page in PAGES.items() if name.startswith("docs/api/"))
    listed = re.findall(r"^::: ([\w.]+)\.(\w+)$", text, re.MULTILINE)

    assert exported_names() - {name for _, name in listed} == set()
    assert [name for package, name in listed if name not in import_module(package).__all__] == []


def test_the_architecture_shows_the_layers_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = [re.sub(r"osmosis_ai\.(rollout\.)?", "", layer) for layer in contracts[0]["layers"]]
    picture = next(block for block in PAGES["docs/architecture.md"].blocks if block.info == "text")

    assert [re.split(r" {2,}", line)[0] for line in picture.code.splitlines()] == layers


# --- commands


@each_page
def test_a_block_of_shell_says_how_it_is_tried(page: Page) -> None:
    assert [f"{block}: {block.info}" for block in shell(page) if not HOW.fullmatch(block.info)] == []


def shell(page: Page) -> list[Block]:
    return [block for block in page.blocks if block.language in SHELLS]


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES.values() if not page.name.startswith(RUN_ELSEWHERE)], ids=lambda p: p.name
)
@pytest.mark.timeout(300)
def test_the_commands_of_a_page_work_in_their_order(page: Page, tmp_path: Path) -> None:
    with ExitStack() as server:
        port: int | None = None
        for block in page.blocks:
            match block.info:
                case "bash serve":
                    with serving(block.code, tmp_path):
                        pass
                case "bash with-server":
                    if port is None:
                        port = server.enter_context(serving(SERVER, tmp_path))
                    run(block.code, tmp_path, port, has_key=False)
                case "bash doctor":
                    run(f"{block.code.strip()} || test $? = 1", tmp_path, port)
                case "bash":
                    run(block.code, tmp_path, free_port())


def invocations(text: str) -> Iterator[list[str]]:
    """The words of each ``osmosis ...`` in a piece of shell; ``rollout-conformance`` is its ``conformance``."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"[|;&]|\$\(", line):
            found = re.search(
                r"(?:^|\s)osmosis\s+(.*)", re.sub(r"(^|\s)rollout-(?=conformance\s)", r"\1osmosis ", part)
            )
            if found:
                try:
                    yield shlex.split(found[1], comments=True)
                except ValueError:  # a quote that the split above has cut
                    yield found[1].split()


def mentions(page: Page) -> Iterator[list[str]]:
    for text in [*(block.code for block in shell(page)), *page.code_spans]:
        yield from (words for words in invocations(text) if words)


@each_page
def test_a_command_that_is_mentioned_exists_with_its_flags(page: Page) -> None:
    assert {" ".join(words): problem for words in mentions(page) if (problem := problem_of_command(words))} == {}


def problem_of_command(words: list[str]) -> str | None:
    if words[0].startswith("-"):
        is_known = words[0] in ("--help", "-h", "--version", "-V", "--install-completion")
        return None if is_known else "no such flag"
    known = all_commands()
    name = next((name for name in (" ".join(["osmosis", *words[:2]]), f"osmosis {words[0]}") if name in known), None)
    if name is None:
        is_group = any(command.startswith(f"osmosis {words[0]} ") for command in known)
        return None if is_group else "no such command"
    used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word, re.IGNORECASE)}
    unknown = used - flags(known[name])
    return f"{name} has no {', '.join(sorted(unknown))}" if unknown else None


@cache
def all_commands() -> dict[str, Any]:
    return dict(commands())


def test_what_is_mentioned_and_does_not_exist_is_found_out() -> None:
    assert problem_of_command(["tset"]) == "no such command"
    assert problem_of_command(["test", "--agnet", "x"]) == "osmosis test has no --agnet"
    assert problem_of_command(["--vresion"]) == "no such flag"
    assert sum(len(list(mentions(page))) for page in PAGES.values()) > 100


# --- Python


@each_page
def test_python_compiles_and_says_how_it_is_tried(page: Page) -> None:
    for block in page.blocks:
        if block.language == "python":
            assert block.info in ("python", "python run"), block
            compile(block.code, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.slow
@each_page
def test_python_that_is_to_be_run_runs(page: Page, tmp_path: Path) -> None:
    for block in page.blocks:
        if block.info == "python run":
            script = tmp_path / "block.py"
            script.write_text(block.code, encoding="utf-8")

            done = subprocess.run(
                [sys.executable, str(script)],
                cwd=ROOT,
                env={"PYTHONPATH": str(ROOT), "PATH": ""},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )

            assert done.returncode == 0, f"{block}: {done.stderr}"
