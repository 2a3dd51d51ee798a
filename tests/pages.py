"""The Markdown pages of the project: their links, anchors and code blocks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
FOLDERS = ("deploy", "docs", "sdk", "conformance", "bench", "examples", "training", ".github")
SHELLS = frozenset({"bash", "sh", "shell", "console", "zsh", "shell-session"})

_NAMED = re.compile(r'<sup id="([\w-]+)">')
_parser = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: str
    line: int
    info: str
    code: str

    @property
    def language(self) -> str:
        """First word of the info string."""
        return self.info.partition(" ")[0]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        """Its path from the project's folder."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def tokens(self) -> list[Token]:
        """What CommonMark makes of it."""
        return _parser.parse(self.path.read_text(encoding="utf-8"))

    @cached_property
    def blocks(self) -> list[Block]:
        """Its fenced blocks."""
        return [
            Block(self.name, (token.map or [0])[0] + 1, token.info.strip(), token.content)
            for token in self.tokens
            if token.type == "fence"
        ]

    @property
    def links(self) -> list[str]:
        """Where its links and images lead."""
        targets = (token.attrGet("href") or token.attrGet("src") for token in self._inline())
        return [unquote(str(target)) for target in targets if target]

    @property
    def code_spans(self) -> list[str]:
        """Its inline code."""
        return [token.content for token in self._inline() if token.type == "code_inline"]

    @cached_property
    def anchors(self) -> set[str]:
        """The fragments that its headings can be linked by, as GitHub makes them, and those that it names itself."""
        found: set[str] = set()
        for heading, inline in zip(self.tokens, self.tokens[1:], strict=False):
            if heading.type == "heading_open":
                text = "".join(part.content for part in inline.children or [])
                slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
                repeats = (f"{slug}-{number}" for number in range(1, 1000))
                found.add(slug if slug not in found else next(name for name in repeats if name not in found))
        return found | {name for token in self._inline() for name in _NAMED.findall(token.content)}

    def _inline(self) -> Iterator[Token]:
        return (child for token in self.tokens for child in token.children or [])


@cache
def pages() -> dict[str, Page]:
    """Every page by its name."""
    files = [*ROOT.glob("*.md"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.md"))]
    own = (file for file in files if not any(part.startswith(".") for part in file.relative_to(ROOT).parts[:-1]))
    return {page.name: page for page in map(Page, sorted(own))}
