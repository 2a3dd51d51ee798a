"""The sentences of the protocol that bind somebody: data for the conformance kit, and a table of what tries each.

A sentence, or a row of a table, that has a key word of RFC 2119 ends with its name: ``<sup id="way-1">way-1</sup>``.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rollout_conformance import all_checks
from rollout_conformance.sentences import PERMISSION, TRAINER, WHY_NOT, Level, Sentence

PROTOCOL = Path(__file__).parents[1] / "protocol.md"
MAX_SHOWN_CHARACTERS = 150

_NAME = re.compile(r'<sup id="([a-z]+-[0-9]+)">\1</sup>')
_HEADING = re.compile(r"##+ (\d[\d.]*?)\.? ")
_ITEM = re.compile(r"^(- |\d+\. )")
_KEY_WORD = re.compile(r"\b(MUST|SHOULD|MAY)\b")
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`*\[(])")
_NOT_TEXT = re.compile(r"^```.*?^```$|<!-- generated: [\w-]+ -->.*?<!-- end -->", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def sentences(page: str) -> Iterator[Sentence]:
    """Every sentence of ``page`` that has a name, in its order.

    Raises:
        ValueError: a key word without a name, a name without or with several kinds of key words, or a name twice.
    """
    seen = set()
    for section, block in _blocks(page):
        *named, rest = _NAME.split(block)
        if block.startswith("|") and named:
            named[0] = ": ".join(cell.strip() for cell in named[0].strip(" |").split("|") if cell.strip())
        for text, name in zip(named[::2], named[1::2], strict=True):
            *before, sentence = _END_OF_SENTENCE.split(" ".join(text.split())) if not block.startswith("|") else [text]
            levels = set(_KEY_WORD.findall(sentence))
            if len(levels) != 1 or name in seen:
                raise ValueError(f"{name} says {sorted(levels)}, or stands twice: {sentence}")
            _refuse_key_words(before)
            seen.add(name)
            yield Sentence(name, Level(levels.pop()), section, _plain(sentence))
        _refuse_key_words([rest])


def as_json(page: str) -> str:
    """What the kit is shipped with."""
    rows: list[dict[str, Any]] = [
        {"id": one.id, "level": str(one.level), "section": one.section, "text": one.text} for one in sentences(page)
    ]
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def table(page: str, mutants: dict[str, list[str]]) -> str:
    """A row for each sentence: what tries it, each check with the planted defects of ``mutants`` that it finds."""
    by_sentence: dict[str, list[str]] = {}
    for check in all_checks():
        defects = ", ".join(mutants.get(check.id, [])) or "none"
        for name in check.sentences:
            by_sentence.setdefault(name, []).append(f"`{check.id}` ({defects})")
    lines = ["| sentence | level | says | tried by (planted defects that it finds) |", "|---|---|---|---|"]
    for one in sentences(page):
        tried = "<br>".join(by_sentence.get(one.id, [])) or f"not checkable: {WHY_NOT[one.id]}"
        lines.append(f"| [{one.id}](protocol.md#{one.id}) | {one.level} | {_shown(one.text)} | {tried} |")
    return "\n".join(lines) + "\n"


def not_tried(page: str) -> str:
    """Which sentences that bind a server no check can try, for the top of the page."""
    names = [one.id for one in sentences(page) if WHY_NOT.get(one.id, PERMISSION) not in {PERMISSION, TRAINER}]
    links = ", ".join(f"[{name}](#{name})" for name in names)
    return f"Of those that bind a server, none can try these from outside (the table says why):\n{links}.\n"


def _blocks(page: str) -> Iterator[tuple[str, str]]:
    """Paragraphs, list items and rows, each with the number of its section; what stands before the first has none."""
    section, block = "", ""
    for line in [*_NOT_TEXT.sub("", page).splitlines(), ""]:
        if heading := _HEADING.match(line):
            section = heading[1]
        if (not line.strip() or _ITEM.match(line) or line.startswith(("#", "|"))) and block:
            if section:
                yield section, block
            block = ""
        if not line.startswith("#"):
            block = f"{block} {line.strip()}".strip()


def _refuse_key_words(texts: list[str]) -> None:
    for text in texts:
        if _KEY_WORD.search(text):
            raise ValueError(f"This binds somebody and has no name: {text.strip()}")


def _plain(text: str) -> str:
    return _LINK.sub(r"\1", _ITEM.sub("", " ".join(text.split()), count=1)).replace("**", "").strip(" |")


def _shown(text: str) -> str:
    words = text.replace("|", "\\|")
    return words if len(words) <= MAX_SHOWN_CHARACTERS else words[:MAX_SHOWN_CHARACTERS].rpartition(" ")[0] + " ..."
