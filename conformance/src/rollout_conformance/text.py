"""Text of a server made safe for one line of a terminal, a report or a message."""

import re
import unicodedata
from typing import Any

MAX_SHOWN_CHARACTERS = 300
MAX_QUOTED_CHARACTERS = 160
LEAST_SECRET_CHARACTERS = 4
"""A shorter secret may be in any text by chance."""
# ECMA-48: CSI sequences (colours, clearing the screen), and OSC ones (the window's title).
_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)")


def printable(text: str, encoding: str = "utf-8") -> str:
    """``text`` on one line, without control sequences or invisible characters, in what ``encoding`` can write."""
    if text.isascii() and text.isprintable() and "  " not in text and text.strip(" ") == text:
        return text
    one_line = " ".join(_SEQUENCE.sub("", text).split())
    # Category C: controls, marks that turn the direction of writing, lone surrogates, what is not assigned.
    shown = "".join(character for character in one_line if unicodedata.category(character)[0] != "C")
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def shortened(text: str, limit: int = MAX_SHOWN_CHARACTERS) -> str:
    """``text`` made printable and cut to ``limit`` characters."""
    # Only a piece is looked at: a server's answer may be of any size.
    shown = printable(text[: limit * 4])
    return f"{shown[:limit]}..." if len(shown) > limit or len(text) > limit * 4 else shown


def quoted(value: Any) -> str:
    """Any JSON value, short and printable."""
    return shortened(repr(value), MAX_QUOTED_CHARACTERS)
