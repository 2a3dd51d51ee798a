"""The site: it builds strictly, every link in it leads somewhere, and the reference in it is complete."""

import re
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from docs.site import build, pages as pages_of_the_site
from osmosis_ai.rollout import RolloutClientSettings, RolloutJudgeSettings, RolloutServerSettings, RolloutSettings
from tests.commands import ROOT, commands, flags
from tests.exports import PACKAGES, exported_names


class _Html(HTMLParser):
    """The anchors of a page, where it leads, what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(unquote(given["href"]))
        if source := given.get("src") or (tag == "link" and given.get("href")):
            self.loads.add(source)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def html(site: Path) -> dict[Path, _Html]:
    return {page: _Html(page.read_text(encoding="utf-8")) for page in site.rglob("*.html") if page.name != "404.html"}


@pytest.fixture(scope="module")
def entries(site: Path) -> set[str]:
    """The names that the reference has an entry for, as mkdocstrings tells other projects."""
    inventory = (site / "objects.inv").read_bytes().split(b"zlib.\n", 1)[1]
    return {line.split(" ", 1)[0] for line in zlib.decompress(inventory).decode().splitlines()}


def test_every_page_is_in_the_site_and_in_its_menu(site: Path) -> None:
    names = {page.relative_to(ROOT).as_posix() for page in pages_of_the_site()}
    menu = set(re.findall(r'= "([\w./-]+\.md)"', (ROOT / "docs/zensical.toml").read_text(encoding="utf-8")))
    documentation = {name for name in names if re.fullmatch(r"docs/(api/)?[\w-]+\.md", name)}

    assert len(documentation) > 15
    assert documentation - menu - {"docs/api/README.md"} == set()
    for name in names:
        page = name.replace("README.md", "index.md").replace(".md", ".html")
        assert (site / page).is_file(), name


def test_every_link_of_the_site_leads_somewhere(html: dict[Path, _Html]) -> None:
    assert sorted(broken(html)) == []


def broken(html: dict[Path, _Html]) -> Iterator[str]:
    for page, parsed in html.items():
        for link in parsed.links:
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if re.match(r"[a-z]+:", link) or anchor == "__skip":
                continue
            if not target.is_file() or (anchor and target in html and anchor not in html[target].ids):
                yield f"{page.name}: {link}"


def test_the_site_is_dark_where_the_system_is(site: Path) -> None:
    choices = r'data-md-color-media="\(prefers-color-scheme(.*?)\)" data-md-color-scheme="(\w+)"'
    found = re.findall(choices, (site / "index.html").read_text(encoding="utf-8"))
    assert found == [("", "default"), (": light", "default"), (": dark", "slate")]


def test_the_site_loads_nothing_from_elsewhere(html: dict[Path, _Html]) -> None:
    assert {source for parsed in html.values() for source in parsed.loads if re.match(r"([a-z]+:)?//", source)} == set()


def test_every_exported_name_has_an_entry(entries: set[str]) -> None:
    names = exported_names()

    assert {name for name in names if not any(f"{package}.{name}" in entries for package in PACKAGES)} == set()


def test_every_setting_has_an_entry(entries: set[str]) -> None:
    for model in (RolloutServerSettings, RolloutClientSettings, RolloutJudgeSettings, RolloutSettings):
        assert {f"osmosis_ai.rollout.{model.__name__}.{name}" for name in model.model_fields} - entries == set()


def test_every_command_has_its_section_with_every_option(site: Path) -> None:
    page = re.sub(r"<.*?>", "", (site / "docs/api/commands.html").read_text(encoding="utf-8"))

    for name, command in commands():
        section = page.partition(f"$ {name} ")[2].partition("Usage:")[0]
        assert {flag for flag in flags(command, shown=True) if flag not in section} - {"-h"} == set(), name


def test_an_entry_has_signature_docstring_and_what_is_raised(site: Path) -> None:
    page = (site / "docs/api/agent.html").read_text(encoding="utf-8")
    entry = page.partition('id="osmosis_ai.rollout.RolloutContext.chat"')[2].partition('class="doc doc-children"')[0]
    words = re.sub(r"<.*?>", "", entry)

    assert re.search(r"chat\(\s*messages: list\[MessageDict\], \*\*kwargs: Any\s*\) -&gt; CompletionsResult", words)
    assert "Generate the next message." in words
    assert "TypeError &ndash; the policy" in re.sub(r"\s+", " ", words.replace("\u2013", "&ndash;"))
