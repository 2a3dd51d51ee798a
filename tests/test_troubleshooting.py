"""The troubleshooting page quotes what the program says: each message is one that a string in the source can make."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from osmosis_ai.rollout.tooling.doctor.examination import CHECKS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = [
    line for block in re.findall(r"^```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]

# A template with less text than this of its own could make nearly anything.
MIN_LITERAL_LENGTH = 18
_FIELD = re.compile(r"%(?:\.\d+)?[a-z]|\{[^{}]*\}")
_SPOT = "\0"


def templates() -> Iterator[str]:
    """Every text in the source, with ``_SPOT`` where a value goes."""
    for file in (ROOT / "sdk" / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else _SPOT for part in node.values]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield _FIELD.sub(_SPOT, node.value)


@cache
def patterns() -> list[re.Pattern[str]]:
    return [
        re.compile(re.escape(template).replace(re.escape(_SPOT), ".*"))
        for template in set(templates())
        if len(template.replace(_SPOT, "")) >= MIN_LITERAL_LENGTH and "\n" not in template
    ]


def test_there_are_messages() -> None:
    assert len(MESSAGES) == len(set(MESSAGES)) >= 40


@pytest.mark.slow
@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_one_that_the_program_says(message: str) -> None:
    assert any(pattern.fullmatch(message) for pattern in patterns())


@pytest.mark.slow
@pytest.mark.parametrize(
    "message", ["Cannot listen on that.", "The journal is sad.", "Row 3: all is well with it, thanks."]
)
def test_a_message_that_it_does_not_say_is_found_out(message: str) -> None:
    assert not any(pattern.fullmatch(message) for pattern in patterns())


def test_the_table_has_every_check_of_the_doctor() -> None:
    table = re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert table == [(check.id, check.about) for check in CHECKS]
