"""Foreign text made safe for one line of a terminal or a message."""

import unicodedata

from osmosis_ai.rollout.core.console import strip_control

MAX_SHOWN_CHARACTERS = 300


def printable(text: str, encoding: str = "utf-8") -> str:
    """``text`` on one line, without control sequences or invisible characters, in what ``encoding`` can write."""
    one_line = " ".join(strip_control(text).split())
    shown = "".join(character for character in one_line if unicodedata.category(character)[0] != "C")
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def shortened(text: str, limit: int = MAX_SHOWN_CHARACTERS) -> str:
    """``text`` made printable and cut to ``limit`` characters."""
    shown = printable(text[: limit * 4])
    return f"{shown[:limit]}..." if len(shown) > limit or len(text) > limit * 4 else shown
